// Dropout whose rows carry their own place in the batch: rows of an expert come from anywhere in
// it.
#pragma once

#include "libswitch/base/rng.h"
#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// y = x·mask/(1-rate) for x [R, F] (or +=); draw index (first_row + row_index[r])·F + f, kept iff
/// the uniform draw is >= rate; row_index [R] i32. Its backward is the same map on the gradient. y
/// may be x when accum is write.
SW_KERNEL(row_dropout, Tensor& y, Accum accum, const Tensor& x, const Tensor& row_index,
          double rate, RngKey key, int64_t first_row)

}  // namespace sw::kernels
