// A vector added to every row.
#pragma once

#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// y [N, E] = x [N, E] + bias [E], all master; y may be x.
SW_KERNEL(add_bias, Tensor& y, const Tensor& x, const Tensor& bias)
/// d_bias [E] = Σ over rows of d_y [N, E] in blocks of fixed size, then in order of blocks (or +=).
SW_KERNEL(bias_gradient, Tensor& d_bias, Accum accum, const Tensor& d_y)

}  // namespace sw::kernels
