#include <algorithm>
#include <type_traits>

#include "libswitch/kernels/cpu/gemm.h"
#include "libswitch/kernels/cpu/matmul_pack.h"
#include "libswitch/kernels/cpu/matmul_tile.h"
#include "libswitch/kernels/cpu/scratch.h"

namespace sw::kernels::cpu {
namespace {

// oneDNN 2.6.3 on AVX2: in blocks of at most 256 of k, at most 263 columns and a multiple of 12
// rows, every element is one chain of fused multiply-adds over k, whatever the other sizes. (Other
// row counts go through kernels that keep several partial sums.)
constexpr int64_t kDepth = 256;
constexpr int64_t kRows = 12;
constexpr int64_t kPanel = 96;       // columns of b at a time: with 504 rows, beside a in the cache
constexpr int64_t kWidePanel = 144;  // for tiles of fewer rows
constexpr int64_t kManyRows = 300;
constexpr int64_t kNarrow = 16;
// With no more rows than this, packing b costs more than it saves.
constexpr int64_t kFewRows = 48;

// Width of the next panel when `left` columns are left: never a narrow one at the end, which
// oneDNN would take for a vector.
int64_t panel_width(int64_t panel, int64_t left) { return left < panel + kNarrow ? left : panel; }

struct Buffers {
  Scratch a, b, c, tail_a, tail_c;
};

// c (m x n) = or += a·op(b), m of any size.
void multiply_block(Buffers& buffers, int64_t m, int64_t n, int64_t k, const float* a,
                    int64_t stride_a, const float* b, int64_t stride_b, Transpose transpose_b,
                    float* c, int64_t stride_c, Accum accum) {
  const int64_t full = m / kRows * kRows;
  const int64_t rest = m - full;
  if (full > 0) {
    gemm_tile(full, n, k, a, stride_a, Transpose::no, b, stride_b, transpose_b, c, stride_c, accum);
  }
  if (rest == 0) return;
  float* tail_a = buffers.tail_a.get<float>(kRows * k);
  float* tail_c = buffers.tail_c.get<float>(kRows * n);
  pack(a + full * stride_a, stride_a, rest, k, tail_a, k);
  std::fill_n(tail_a + rest * k, (kRows - rest) * k, 0.0f);
  float* out = c + full * stride_c;
  if (accum == Accum::add) {
    pack(out, stride_c, rest, n, tail_c, n);
    std::fill_n(tail_c + rest * n, (kRows - rest) * n, 0.0f);
  }
  gemm_tile(kRows, n, k, tail_a, k, Transpose::no, b, stride_b, transpose_b, tail_c, n, accum);
  pack(tail_c, n, rest, n, out, stride_c);
}

}  // namespace

template <class T, class C>
void tile_by_sgemm(const Product& product, const Tile& tile, Accum accum) {
  static thread_local Buffers buffers;
  const T* a = static_cast<const T*>(product.a);
  const T* b = static_cast<const T*>(product.b);
  C* c = static_cast<C*>(product.c) + tile.row * product.stride_c + tile.column;
  const int64_t m = tile.rows, n = tile.columns;

  // A bf16 result is summed in f32 and rounded once.
  constexpr bool kInPlace = std::is_same_v<C, float>;
  float* sum = nullptr;
  int64_t stride_sum = n;
  if constexpr (kInPlace) {
    sum = c;
    stride_sum = product.stride_c;
  } else {
    sum = buffers.c.get<float>(m * n);
  }
  Accum step = kInPlace ? accum : Accum::write;
  if (product.k == 0 && step == Accum::write) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(sum + i * stride_sum, n, 0.0f);
  }

  constexpr bool kWiden = !std::is_same_v<T, float>;
  const bool pack_a = kWiden || product.transpose_a;
  const bool pack_b = kWiden || m > kFewRows;
  const int64_t panel = !pack_b ? n : m > kManyRows ? kPanel : kWidePanel;
  for (int64_t p = 0; p < product.k; p += kDepth) {
    const int64_t depth = std::min(kDepth, product.k - p);
    const T* from_a = a + (product.transpose_a ? p * product.stride_a + tile.row
                                               : tile.row * product.stride_a + p);
    const float* block_a = nullptr;
    int64_t stride_a = depth;
    if (pack_a) {
      float* packed = buffers.a.get<float>(m * depth);
      if (product.transpose_a) {
        pack_transposed(from_a, product.stride_a, depth, m, packed, depth);
      } else {
        pack(from_a, product.stride_a, m, depth, packed, depth);
      }
      block_a = packed;
    } else if constexpr (!kWiden) {
      block_a = from_a;
      stride_a = product.stride_a;
    }
    for (int64_t j = 0, width = 0; j < n; j += width) {
      width = panel_width(panel, n - j);
      const T* from_b = b + (product.transpose_b ? (tile.column + j) * product.stride_b + p
                                                 : p * product.stride_b + tile.column + j);
      const float* block_b = nullptr;
      int64_t stride_b = width;
      Transpose transpose_b = Transpose::no;
      if (pack_b) {
        float* packed = buffers.b.get<float>(depth * width);
        if (product.transpose_b) {
          pack_transposed(from_b, product.stride_b, width, depth, packed, width);
        } else {
          pack(from_b, product.stride_b, depth, width, packed, width);
        }
        block_b = packed;
      } else if constexpr (!kWiden) {
        block_b = from_b;
        stride_b = product.stride_b;
        transpose_b = product.transpose_b ? Transpose::yes : Transpose::no;
      }
      multiply_block(buffers, m, width, depth, block_a, stride_a, block_b, stride_b, transpose_b,
                     sum + j, stride_sum, step);
    }
    step = Accum::add;
  }

  if constexpr (!kInPlace) {
    with_accum(accum, [&](auto add) {
      for (int64_t i = 0; i < m; ++i) {
        const float* x = sum + i * n;
        C* y = c + i * product.stride_c;
        for (int64_t j = 0; j < n; ++j) put(add, y, j, x[j]);
      }
    });
  }
}

template void tile_by_sgemm<float, float>(const Product&, const Tile&, Accum);
template void tile_by_sgemm<bf16, float>(const Product&, const Tile&, Accum);
template void tile_by_sgemm<bf16, bf16>(const Product&, const Tile&, Accum);

void tile_by_loops(const Product& product, const Tile& tile, Accum accum) {
  constexpr int64_t kLoopPanel = 64;
  static thread_local Scratch scratch_a, scratch_b;
  const auto* a = static_cast<const double*>(product.a);
  const auto* b = static_cast<const double*>(product.b);
  double* c = static_cast<double*>(product.c) + tile.row * product.stride_c + tile.column;
  if (product.k == 0 && accum == Accum::write) {
    for (int64_t i = 0; i < tile.rows; ++i) {
      std::fill_n(c + i * product.stride_c, tile.columns, 0.0);
    }
  }
  for (int64_t p = 0; p < product.k; p += kDepth) {
    const int64_t depth = std::min(kDepth, product.k - p);
    double* block_a = scratch_a.get<double>(tile.rows * depth);
    if (product.transpose_a) {
      pack_transposed(a + p * product.stride_a + tile.row, product.stride_a, depth, tile.rows,
                      block_a, depth);
    } else {
      pack(a + tile.row * product.stride_a + p, product.stride_a, tile.rows, depth, block_a, depth);
    }
    const Accum step = p == 0 ? accum : Accum::add;
    for (int64_t j = 0; j < tile.columns; j += kLoopPanel) {
      const int64_t width = std::min(kLoopPanel, tile.columns - j);
      const int64_t column = tile.column + j;
      double* block_b = scratch_b.get<double>(depth * kLoopPanel);
      if (product.transpose_b) {
        pack_transposed(b + column * product.stride_b + p, product.stride_b, width, depth, block_b,
                        width);
      } else {
        pack(b + p * product.stride_b + column, product.stride_b, depth, width, block_b, width);
      }
      gemm_tile(tile.rows, width, depth, block_a, depth, Transpose::no, block_b, width,
                Transpose::no, c + j, product.stride_c, step);
    }
  }
}

}  // namespace sw::kernels::cpu
