// Elementwise sums, largest and smallest values of ranks' data, in canonical order.
#pragma once

#include <bit>
#include <cstdint>

#include "libswitch/comm/group.h"

namespace sw {

/// out[i] = left[i] op right[i] for n elements; out may be left or right. f32, f64, bf16 (computed
/// in f32, rounded) and i32; a NaN on either side stays one. Throws internal for other dtypes.
void combine(ReduceOp op, DType dtype, void* out, const void* left, const void* right, int64_t n);

/// Calls add(left, right) for the sums of `count` leaves in canonical order: neighbours, then pairs
/// of neighbours, and so on; what a power of two leaves over is added from the right. left stands
/// for both afterwards, so that leaf 0 ends as the sum.
template <class Add>
void add_in_order(int64_t count, const Add& add, int64_t first = 0) {
  if (count <= 1) return;
  const auto whole = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(count)));
  const int64_t left = whole == count ? count / 2 : whole;
  add_in_order(left, add, first);
  add_in_order(count - left, add, first + left);
  add(first, first + left);
}

/// Combines `count` pieces of n elements that lie one after the other into the first, in that
/// order; the others are overwritten.
void combine_pieces(ReduceOp op, DType dtype, void* pieces, int64_t count, int64_t n);

}  // namespace sw
