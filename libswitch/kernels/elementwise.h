// Element-by-element maps: fill, copy, cast, add, ReLU, dropout, row masks, and fixed-order sums.
#pragma once

#include "libswitch/base/rng.h"
#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// x = value, any dtype.
SW_KERNEL(fill, Tensor& x, double value)
/// y = x with conversion between f32, bf16 and f64 (same shape).
SW_KERNEL(cast, Tensor& y, const Tensor& x)
/// y = factor·x, or y += factor·x; dtypes of x and y may differ (gradient of a cast, trees of
/// gradients).
SW_KERNEL(scale, Tensor& y, const Tensor& x, double factor, Accum accum)

/// y = max(x, 0); y may be x.
SW_KERNEL(relu_forward, Tensor& y, const Tensor& x)
/// d_x = d_y where y > 0, else 0 (y is the saved output); d_x may be d_y when accum is write.
SW_KERNEL(relu_backward, Tensor& d_x, Accum accum, const Tensor& y, const Tensor& d_y)

struct DropoutParams {
  double rate = 0;
  RngKey key;
  int64_t first_row = 0;  // global index of row 0 of x [N, D]
  int64_t rows_per_mask =
      1;  // this many consecutive rows share one mask (sequence length: shared over it)
  // Columns may be cut over ranks: x holds [first_column, first_column + D) of total_columns.
  int64_t first_column = 0;
  int64_t total_columns = 0;  // 0: D
};
/// y = x·mask/(1-rate) for x [N, D] (or +=); draw index: ((first_row + n) /
/// rows_per_mask)·total_columns + first_column + d, kept iff the uniform draw is >= rate. The
/// backward pass is the same map applied to the gradient.
SW_KERNEL(dropout, Tensor& y, Accum accum, const Tensor& x, const DropoutParams& params)

/// y = x with rows whose mask [N] u8 is 0 set to zero; y may be x. Its own backward.
SW_KERNEL(mask_rows, Tensor& y, Accum accum, const Tensor& x, const Tensor& row_mask)

/// *sum = Σ x² in f64, over fixed blocks combined in a binary tree.
SW_KERNEL(sum_of_squares, double* sum, const Tensor& x)
/// *count = number of elements that are NaN or infinite.
SW_KERNEL(count_nonfinite, int64_t* count, const Tensor& x)

}  // namespace sw::kernels
