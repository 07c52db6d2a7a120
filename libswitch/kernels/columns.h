// Blocks of columns of matrices: what goes from rank to rank when rows are cut in parts.
#pragma once

#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// y[n, y_column + c] = x[n, x_column + c] for c in [0, columns); x [N, ..] and y [N, ..] of one
/// dtype, any. The other columns of y are left alone.
SW_KERNEL(copy_columns, Tensor& y, int64_t y_column, const Tensor& x, int64_t x_column,
          int64_t columns)

}  // namespace sw::kernels
