// Lookup in the shared vocabulary table.
#pragma once

#include "libswitch/kernels/kernel.h"
#include "libswitch/kernels/vocabulary.h"

namespace sw::kernels {

/// y[n] = table[ids[n] - part.first], zeros where the table does not hold that row; y [N, D],
/// table [V, D] of one dtype, ids [N] i32 in [0, part.total) (checked: usage error).
SW_KERNEL(embedding_forward, Tensor& y, const Tensor& table, const Tensor& ids,
          const VocabularyPart& part)
/// d_table [V, D] master: each row is the sum of d_y rows with its id in order of n; ids of rows
/// that it does not hold are passed over; with Accum::write all other rows become zero.
SW_KERNEL(embedding_backward, Tensor& d_table, Accum accum, const Tensor& d_y, const Tensor& ids,
          const VocabularyPart& part)

/// T5's relative-position bias by diagonal. bias [H, T+S-1] master: entry (j-i)+(T-1) =
/// table[h][bucket(j-i)]; table [H, buckets] master. Buckets: spec in nn/relative_bias.h;
/// `bucket_of` [T+S-1] i32 gives them by diagonal.
SW_KERNEL(relative_bias_forward, Tensor& bias, const Tensor& table, const Tensor& bucket_of)
SW_KERNEL(relative_bias_backward, Tensor& d_table, Accum accum, const Tensor& d_bias,
          const Tensor& bucket_of)

}  // namespace sw::kernels
