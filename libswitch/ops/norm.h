// Residual addition and RMS normalisation.
#pragma once

#include "libswitch/tape/context.h"

namespace sw::ops {

struct ResidualNorm {
  Var residual;  // [N, D] residual + branch
  Var normed;    // [N, D] RMSNorm(residual)·scale, rows without mask zero
};

/// branch may be undefined: the residual passes unchanged. scale [D] master; row_mask [N] u8 or
/// undefined.
ResidualNorm residual_norm(Context& context, const Var& residual, const Var& branch,
                           const Var& scale, const Tensor& row_mask, double epsilon);

}  // namespace sw::ops
