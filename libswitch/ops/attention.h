// Attention over projected queries, keys and values, and T5's relative bias.
#pragma once

#include "libswitch/kernels/attention.h"
#include "libswitch/tape/context.h"

namespace sw::ops {

/// Shapes as in kernels/attention.h; bias [H, T+S-1] may be undefined; segments both defined or
/// neither.
Var attention(Context& context, const Var& q, const Var& k, const Var& v, const Var& bias,
              const Tensor& query_segments, const Tensor& key_segments,
              const kernels::AttentionParams& params);

/// bias [H, T+S-1] from table [H, buckets] by the bucket of each diagonal.
Var relative_bias(Context& context, const Var& table, const Tensor& bucket_of);

}  // namespace sw::ops
