// Multi-head attention with T5's additive relative bias, computed in blocks: the [H, T, S] weights
// of a whole batch never exist. No 1/sqrt(head_dim): T5 folds it into the initialiser of the query
// projection (Raffel et al. 2020; spec of the model in nn/attention.h).
#pragma once

#include "libswitch/base/rng.h"
#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

struct AttentionParams {
  int64_t batch = 0, heads = 0, head_dim = 0;
  // Heads may be cut over ranks: these are heads [first_head, first_head + heads) of total_heads.
  int64_t first_head = 0;
  int64_t total_heads = 0;   // 0: heads
  int64_t query_length = 0;  // T
  int64_t key_length = 0;    // S
  bool causal = false;       // key j is visible to query i only if j <= i
  double dropout = 0;        // rate on the attention weights; 0: none
  RngKey dropout_key;
  int64_t first_row = 0;           // global batch row of row 0: indices of random draws are global
  bool share_over_queries = true;  // one dropout mask per (row, head, key), as in Mesh TensorFlow
};

/// out = softmax(q·kᵀ + bias + mask)·v per head.
/// out, q [B·T, H·Dh]; k, v [B·S, H·Dh] (head h in columns h·Dh .. ); log_sum_exp [B, H, T] master
/// (saved for backward; -inf for a query that sees no key); bias [H, T+S-1] master or undefined:
/// entry (j - i) + (T - 1) is added for query i, key j; query_segments [B, T], key_segments [B, S]
/// i32, both or neither: key j is visible to query i only if their segments are equal. Softmax in
/// master precision. A query that sees no key at all gets the uniform mean over all S keys' values
/// (what adding -1e9 everywhere amounts to), with no gradient to q, k and bias. Dropout scales kept
/// weights by 1/(1-rate); draw index: ((first_row+b)·total_heads + first_head + h)·S + j, or
/// (((first_row+b)·total_heads + first_head + h)·T + i)·S + j when not shared over queries.
SW_KERNEL(attention_forward, Tensor& out, Tensor& log_sum_exp, const Tensor& q, const Tensor& k,
          const Tensor& v, const Tensor& bias, const Tensor& query_segments,
          const Tensor& key_segments, const AttentionParams& params)

/// Gradients of attention_forward: d_q, d_k, d_v like q, k, v, each with its accumulate flag (k and
/// v of cross-attention come from one encoder output); d_bias [H, T+S-1] master, written (not
/// added), or undefined. Recomputes the weights from log_sum_exp block by block. Sums over rows and
/// queries in one fixed order.
SW_KERNEL(attention_backward, Tensor& d_q, Accum accum_q, Tensor& d_k, Accum accum_k, Tensor& d_v,
          Accum accum_v, Tensor& d_bias, const Tensor& q, const Tensor& k, const Tensor& v,
          const Tensor& bias, const Tensor& query_segments, const Tensor& key_segments,
          const Tensor& out, const Tensor& log_sum_exp, const Tensor& d_out,
          const AttentionParams& params)

}  // namespace sw::kernels
