// The borders of the model axis, over context.mesh->model(): heads, d_ff and vocabulary are cut
// over M ranks, while what lies between sublayers, and its gradient, is whole on each of them, in
// the same bits (Shoeybi et al. 2019, "Megatron-LM", section 3: f and g are copy_to_model and
// sum_over_model).
//
// With one model rank all of them return x itself and record nothing. Else their collectives are
// the same on every rank, forward and backward, whatever the data.
#pragma once

#include "libswitch/tape/context.h"

namespace sw::ops {

/// x, which is alike on all ranks and from here on enters products with parts of matrices: the
/// ranks' gradients are summed.
Var copy_to_model(Context& context, const Var& x);

/// The sum of the ranks' x: products with parts of a matrix that is cut along the summed dimension.
/// In place: x's value must have no other reader. The gradient passes as it is.
Var sum_over_model(Context& context, const Var& x);

/// x [N, D], alike on all ranks -> this rank's columns [N, D/M]. Throws internal unless M divides
/// D. Gradient: the ranks' columns are gathered.
Var slice_columns_over_model(Context& context, const Var& x);

/// Each rank's columns [N, D/M] -> [N, D], alike on all ranks, for use that is alike on all ranks:
/// the gradient is this rank's columns.
Var gather_columns_over_model(Context& context, const Var& x);

/// copy_to_model(gather_columns_over_model(x)) with half the traffic of its gradient: [N, D] that
/// enters products with parts of matrices. Gradient: summed over the ranks, this rank's columns.
Var gather_columns_to_model(Context& context, const Var& x);

/// slice_columns_over_model(sum_over_model(x)) with half the traffic: each rank's share x [N, D] of
/// a sum -> this rank's columns of the sum [N, D/M]. Gradient: the ranks' columns are gathered.
Var sum_and_slice_over_model(Context& context, const Var& x);

/// As a plain tensor: each rank's x [N, C] -> [M, N, C].
Tensor gathered_rows(Group& group, const Tensor& x);

/// As a plain tensor: each rank's columns x [N, C] -> [N, M·C].
Tensor gathered_columns(const Stream& stream, Group& group, const Tensor& x);

}  // namespace sw::ops
