#include "libswitch/kernels/cpu/matmul_blocks.h"

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/matmul_panels.h"
#include "libswitch/kernels/cpu/matmul_tile.h"

namespace sw::kernels::cpu {
namespace {

// Largest tile: more rows amortise the packing of b, and a chunk of them still fits the second
// level cache beside a panel of b.
constexpr int64_t kMostRows = 504;
constexpr int64_t kMostColumns = 1056;
constexpr int64_t kLeastWork = int64_t{1} << 20;  // multiplications
constexpr int64_t kRowUnit = 48;
constexpr int64_t kNarrow = 16;  // a last tile with fewer columns joins its neighbour

// How tiles are cut for a multiplier.
struct Cut {
  // Tiles of this size or less are not cut further.
  int64_t least_rows, least_columns;
  // Tiles begin at multiples of this and of kRowUnit: only a product's last tile has odd sizes.
  int64_t column_unit;
  int64_t tiles_per_thread;
  // Packing b costs in inverse proportion to the rows of a tile, packing a to its columns: a tile
  // with fewer rows than this for each column is cut by columns.
  int64_t rows_by_column;
};
constexpr Cut kOfBlocks = {120, 192, 192, 4, 1};
// Packing costs less: smaller tiles keep the cores in step.
constexpr Cut kOfPanels = {144, 64, 64, 6, 2};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Size of the pieces when `size` is cut into about `count` equal ones.
int64_t piece(int64_t size, int64_t count, int64_t unit) {
  return divide_up(divide_up(size, count), unit) * unit;
}

bool has(dnnl::cpu_isa isa) {
  const int wanted = static_cast<int>(isa);
  return (static_cast<int>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
}

template <class T, class C>
void compute(const Product& product, const Tile& tile, Accum accum, BlockMultiplier multiplier) {
  if constexpr (std::is_same_v<T, double>) {
    tile_by_loops(product, tile, accum);
  } else if (multiplier == BlockMultiplier::panels) {
    tile_by_panels<T, C>(product, tile, accum);
  } else if (multiplier == BlockMultiplier::sgemm) {
    tile_by_sgemm<T, C>(product, tile, accum);
  } else {
    tile_by_primitive<T, C>(product, tile, accum);
  }
}

}  // namespace

BlockMultiplier preferred_multiplier(DType operand) {
  if (operand == DType::bf16 ? has_panels<bf16>() : has_panels<float>()) {
    return BlockMultiplier::panels;
  }
  static const BlockMultiplier preferred =
      has(dnnl::cpu_isa::avx512_core) ? BlockMultiplier::primitive : BlockMultiplier::sgemm;
  return preferred;
}

std::vector<Tile> cut_into_tiles(const std::vector<Product>& products, int threads,
                                 BlockMultiplier multiplier) {
  const Cut cut = multiplier == BlockMultiplier::panels ? kOfPanels : kOfBlocks;
  int64_t work = 0;
  for (const Product& p : products) work += p.m * p.n * std::max<int64_t>(p.k, 1);
  const int64_t goal =
      threads == 1 ? work : std::max(kLeastWork, divide_up(work, cut.tiles_per_thread * threads));
  std::vector<Tile> tiles;
  for (size_t i = 0; i < products.size(); ++i) {
    const Product& p = products[i];
    if (p.m <= 0 || p.n <= 0) continue;
    int64_t by_rows = std::max<int64_t>(1, (p.m + kMostRows / 4) / kMostRows);
    int64_t by_columns = divide_up(p.n, kMostColumns);
    int64_t rows = piece(p.m, by_rows, kRowUnit), columns = piece(p.n, by_columns, cut.column_unit);
    while (std::min(rows, p.m) * std::min(columns, p.n) * p.k > goal) {
      const bool can_rows = rows > cut.least_rows, can_columns = columns > cut.least_columns;
      if (can_columns && (columns * cut.rows_by_column >= rows || !can_rows)) {
        columns = piece(p.n, ++by_columns, cut.column_unit);
      } else if (can_rows) {
        rows = piece(p.m, ++by_rows, kRowUnit);
      } else {
        break;
      }
    }
    for (int64_t r = 0; r < p.m; r += rows) {
      for (int64_t c = 0, width = 0; c < p.n; c += width) {
        width = p.n - c < columns + kNarrow ? p.n - c : columns;
        tiles.push_back({static_cast<int64_t>(i), r, std::min(rows, p.m - r), c, width});
      }
    }
  }
  return tiles;
}

void multiply(const std::vector<Product>& products, DType operand, DType result, Accum accum,
              BlockMultiplier multiplier) {
  const std::vector<Tile> tiles = cut_into_tiles(products, num_threads(), multiplier);
  parallel_for(static_cast<int64_t>(tiles.size()), 1, [&](int64_t i, int64_t) {
    const Tile& tile = tiles[static_cast<size_t>(i)];
    const Product& product = products[static_cast<size_t>(tile.product)];
    if (operand == DType::f64) {
      compute<double, double>(product, tile, accum, multiplier);
    } else if (operand == DType::f32) {
      compute<float, float>(product, tile, accum, multiplier);
    } else if (result == DType::f32) {
      compute<bf16, float>(product, tile, accum, multiplier);
    } else {
      compute<bf16, bf16>(product, tile, accum, multiplier);
    }
  });
}

}  // namespace sw::kernels::cpu
