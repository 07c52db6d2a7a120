// What the router and the experts' exchange need beside matrix products.
#pragma once

#include "libswitch/base/rng.h"
#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// y [N, D] master = float(x)·U where U is uniform in (1-epsilon, 1+epsilon), one draw per element
/// at index (first_row + n)·D + d; epsilon 0: the plain cast. (Router input, Fedus et al. 2022,
/// appendix C.) Its backward is the same map on the gradient, cast to x's dtype: pass x = d_y, y =
/// d_x and accum.
SW_KERNEL(jitter_cast, Tensor& y, Accum accum, const Tensor& x, double epsilon, RngKey key,
          int64_t first_row)

/// probabilities = softmax over the last dimension of logits [N, E], and log_z [N] = log Σ exp; all
/// master.
SW_KERNEL(router_softmax, Tensor& probabilities, Tensor& log_z, const Tensor& logits)
/// d_logits = softmax Jacobian of d_probabilities plus d_log_z[n]·probabilities.
SW_KERNEL(router_softmax_backward, Tensor& d_logits, const Tensor& probabilities,
          const Tensor& d_probabilities, const Tensor& d_log_z)

/// rows [R, D] = x[row_token[r]]; row_token [R] i32 (-1: a zero row).
SW_KERNEL(dispatch_forward, Tensor& rows, const Tensor& x, const Tensor& row_token)
/// d_x [N, D] = Σ over the token's k choices, in order, of d_rows[row_of[n, c]]; row_of [N, k] i32,
/// -1: none.
SW_KERNEL(dispatch_backward, Tensor& d_x, Accum accum, const Tensor& d_rows, const Tensor& row_of)

/// y [N, D] = Σ over choices c in order of gate[n, c]·rows[row_of[n, c]]; gate [N, k] master; a
/// token without a row gets zeros, or, when `dropped` is defined, gate[n, 0]·dropped[n] (Hugging
/// Face before 4.52).
SW_KERNEL(combine_forward, Tensor& y, const Tensor& rows, const Tensor& gate, const Tensor& row_of,
          const Tensor& dropped)
/// d_rows [R, D] (every row written; rows nobody reads become zero), d_gate [N, k] written;
/// d_dropped undefined, or [N, D] with its flag.
SW_KERNEL(combine_backward, Tensor& d_rows, Tensor& d_gate, Tensor& d_dropped, Accum accum_dropped,
          const Tensor& rows, const Tensor& gate, const Tensor& row_of, const Tensor& row_token,
          const Tensor& dropped, const Tensor& d_y)

}  // namespace sw::kernels
