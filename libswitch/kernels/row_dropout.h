// Dropout whose rows carry their own place in the batch: rows of an expert come from anywhere in
// it.
#pragma once

#include "libswitch/base/rng.h"
#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

struct RowDropoutParams {
  double rate = 0;
  RngKey key;
  int64_t first_row = 0;  // added to every row index
  // Columns may be cut over ranks: x holds [first_column, first_column + F) of total_columns.
  int64_t first_column = 0;
  int64_t total_columns = 0;  // 0: F
};
/// y = x·mask/(1-rate) for x [R, F] (or +=); draw index (first_row + row_index[r])·total_columns +
/// first_column + f, kept iff the uniform draw is >= rate; row_index [R] i32. Its backward is the
/// same map on the gradient. y may be x when accum is write.
SW_KERNEL(row_dropout, Tensor& y, Accum accum, const Tensor& x, const Tensor& row_index,
          const RowDropoutParams& params)

}  // namespace sw::kernels
