// Residual addition and root-mean-square normalisation in one pass over memory.
#pragma once

#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// residual_out = residual_in + branch (or residual_in when branch is undefined), then
/// normed = residual_out · inv_rms · scale with inv_rms = 1/sqrt(mean(residual_out²) + epsilon),
/// rows whose row_mask is 0 set to zero. (Raffel et al. 2020: no mean subtraction, no bias.)
/// residual_out, normed, residual_in, branch [N, D]; inv_rms [N] master (saved); scale [D] master;
/// row_mask [N] u8 or undefined (all kept). residual_out may be undefined when branch is.
/// Statistics in master precision from the rounded residual_out.
SW_KERNEL(residual_norm_forward, Tensor& residual_out, Tensor& normed, Tensor& inv_rms,
          const Tensor& residual_in, const Tensor& branch, const Tensor& scale,
          const Tensor& row_mask, double epsilon)

/// d_residual = gradient of normed through the norm, plus d_residual_out (undefined: none), written
/// to d_residual_in (write or add); that sum is also the gradient of branch, given in d_branch
/// unless undefined (d_branch may be the same tensor as d_residual_in only if both accumulate flags
/// are write). d_scale [D] master, with its flag: summed over rows in fixed blocks, then in order
/// of blocks.
SW_KERNEL(residual_norm_backward, Tensor& d_residual_in, Accum accum_residual, Tensor& d_branch,
          Accum accum_branch, Tensor& d_scale, Accum accum_scale, const Tensor& residual_out,
          const Tensor& inv_rms, const Tensor& scale, const Tensor& row_mask,
          const Tensor& d_normed, const Tensor& d_residual_out)

}  // namespace sw::kernels
