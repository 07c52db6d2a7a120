// Lookup in the shared vocabulary table.
#pragma once

#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

/// y[n] = table[ids[n]]; y [N, D], table [V, D] of one dtype, ids [N] i32 in [0, V) (checked: usage
/// error).
SW_KERNEL(embedding_forward, Tensor& y, const Tensor& table, const Tensor& ids)
/// d_table [V, D] master: each row is the sum of d_y rows with that id in order of n; with
/// Accum::write all other rows become zero.
SW_KERNEL(embedding_backward, Tensor& d_table, Accum accum, const Tensor& d_y, const Tensor& ids)

/// T5's relative-position bias by diagonal. bias [H, T+S-1] master: entry (j-i)+(T-1) =
/// table[h][bucket(j-i)]; table [H, buckets] master. Buckets: spec in nn/relative_bias.h;
/// `bucket_of` [T+S-1] i32 gives them by diagonal.
SW_KERNEL(relative_bias_forward, Tensor& bias, const Tensor& table, const Tensor& bucket_of)
SW_KERNEL(relative_bias_backward, Tensor& d_table, Accum accum, const Tensor& d_bias,
          const Tensor& bucket_of)

}  // namespace sw::kernels
