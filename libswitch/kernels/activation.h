// Activations, alone and as the gate of a second product (Shazeer 2020). ReLU alone is a map of its
// own, which keeps no input (kernels/elementwise.h).
#pragma once

#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// x times a share of it: ReLU, of what is positive; GELU, Φ(x) (Hendrycks and Gimpel 2016), or by
/// its tanh approximation 0.5(1+tanh(sqrt(2/pi)(x+0.044715x³))); SiLU, 1/(1+e^-x).
enum class Curve { relu, gelu, gelu_tanh, silu };

/// y = curve(x); y may be x.
SW_KERNEL(curve_forward, Tensor& y, const Tensor& x, Curve curve)
SW_KERNEL(curve_backward, Tensor& d_x, Accum accum, const Tensor& x, const Tensor& d_y, Curve curve)

/// y = curve(a)·b; y may be a or b.
SW_KERNEL(gated_forward, Tensor& y, const Tensor& a, const Tensor& b, Curve curve)
SW_KERNEL(gated_backward, Tensor& d_a, Accum accum_a, Tensor& d_b, Accum accum_b, const Tensor& a,
          const Tensor& b, const Tensor& d_y, Curve curve)

}  // namespace sw::kernels
