// Elementwise sums, largest and smallest values of ranks' data, in canonical order.
#pragma once

#include <cstdint>

#include "libswitch/comm/group.h"

namespace sw {

/// out[i] = left[i] op right[i] for n elements; out may be left or right. f32, f64, bf16 (computed
/// in f32, rounded) and i32; a NaN on either side stays one. Throws internal for other dtypes.
void combine(ReduceOp op, DType dtype, void* out, const void* left, const void* right, int64_t n);

/// Combines `count` pieces of n elements that lie one after the other into the first: neighbours,
/// then pairs of neighbours, and so on; what a power of two leaves over is added from the right.
/// The other pieces are overwritten.
void combine_pieces(ReduceOp op, DType dtype, void* pieces, int64_t count, int64_t n);

}  // namespace sw
