#include <algorithm>

#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/matmul_panels.h"
#include "libswitch/kernels/cpu/matmul_tile.h"
#include "libswitch/kernels/cpu/scratch.h"

namespace sw::kernels::cpu {
namespace {

// Packed panels of b at a time: half of a second-level cache of 1 MiB.
constexpr int64_t kPackedWords = int64_t{128} << 10;
// Gradients of a weight that sum over no more rows than this (of experts with little to do) are
// bound by memory: writing them past the caches spares reading what they overwrite.
constexpr int64_t kFewTerms = 64;

bool streams(const Product& product, const Tile& tile, const void* c, Accum accum) {
  return product.transpose_a && product.k <= kFewTerms && accum == Accum::write &&
         reinterpret_cast<uintptr_t>(c) % 64 == 0 && product.stride_c % 16 == 0 &&
         tile.columns % kPanelColumns == 0;
}

}  // namespace

template <class T, class C>
void tile_by_panels(const Product& product, const Tile& tile, Accum accum) {
  static thread_local Scratch packed, sums;
  constexpr bool kRounds = std::is_same_v<C, bf16>;
  constexpr int64_t kDepth = kChunkDepth<T>;
  const T* a = static_cast<const T*>(product.a);
  const T* b = static_cast<const T*>(product.b);
  const int64_t k = product.k, rows = tile.rows;
  C* const c = static_cast<C*>(product.c) + tile.row * product.stride_c + tile.column;
  if (k == 0) {
    for (int64_t i = 0; i < rows && accum == Accum::write; ++i) {
      std::fill_n(c + i * product.stride_c, tile.columns, C{});
    }
    return;
  }
  const int64_t words = words_of<T>(std::min(k, kDepth));
  const int64_t step =
      std::max(kPanelColumns, kPackedWords / words / kPanelColumns * kPanelColumns);
  for (int64_t j = 0; j < tile.columns; j += step) {
    const int64_t columns = std::min(step, tile.columns - j);
    // Sums between chunks: in c, unless they must not mix with what it holds.
    float* between = nullptr;
    int64_t between_stride = columns;
    if (k > kDepth) {
      if constexpr (!kRounds) {
        if (accum == Accum::write) between = c + j, between_stride = product.stride_c;
      }
      if (between == nullptr) between = sums.get<float>(rows * columns);
    }
    for (int64_t p = 0; p < k; p += kDepth) {
      const int64_t depth = std::min(kDepth, k - p);
      PanelSums to;
      if (p > 0) to.start = between, to.start_stride = between_stride;
      if (p + depth < k) {
        to.sum = between, to.stride = between_stride;
      } else {
        if constexpr (kRounds) {
          to.rounded = c + j;
        } else {
          to.sum = c + j;
          to.stream = streams(product, tile, c, accum);
        }
        to.stride = product.stride_c;
        to.add = accum == Accum::add;
      }
      uint32_t* panels = packed.get<uint32_t>(panel_words<T>(depth, columns));
      const int64_t column = tile.column + j;
      pack_panels(
          b + (product.transpose_b ? column * product.stride_b + p : p * product.stride_b + column),
          product.stride_b, product.transpose_b, depth, columns, panels);
      multiply_panels(rows, columns, depth,
                      a + (product.transpose_a ? p * product.stride_a + tile.row
                                               : tile.row * product.stride_a + p),
                      product.stride_a, product.transpose_a, panels,
                      words_of<T>(depth) * kPanelColumns, to);
    }
  }
}

template void tile_by_panels<float, float>(const Product&, const Tile&, Accum);
template void tile_by_panels<bf16, float>(const Product&, const Tile&, Accum);
template void tile_by_panels<bf16, bf16>(const Product&, const Tile&, Accum);

}  // namespace sw::kernels::cpu
