// One head of one batch row, as the forward and backward passes of attention see it.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "libswitch/kernels/attention.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/scratch.h"

namespace sw::kernels::cpu {

/// Pointers at the head's first query and key, and the rules of visibility.
template <class T>
struct AttentionHead {
  const T* q = nullptr;                     // [T, stride]
  const T* k = nullptr;                     // [S, stride]
  const T* v = nullptr;                     // [S, stride]
  const Acc<T>* bias = nullptr;             // [T+S-1] or null
  const int32_t* query_segments = nullptr;  // [T] or null
  const int32_t* key_segments = nullptr;    // [S] or null
  int64_t stride = 0, dim = 0;
  int64_t queries = 0, keys = 0;
  bool causal = false;
  double dropout = 0;
  bool share_over_queries = true;
  RngKey dropout_key;
  uint64_t first_draw = 0;  // index of the draw of query 0, key 0
};

template <class T>
AttentionHead<T> attention_head(int64_t row, int64_t head_index, const Tensor& q, const Tensor& k,
                                const Tensor& v, const Tensor& bias, const Tensor& query_segments,
                                const Tensor& key_segments, const AttentionParams& p) {
  AttentionHead<T> head;
  head.stride = p.heads * p.head_dim;
  head.dim = p.head_dim;
  head.queries = p.query_length;
  head.keys = p.key_length;
  const int64_t column = head_index * p.head_dim;
  head.q = q.data<T>() + row * p.query_length * head.stride + column;
  head.k = k.data<T>() + row * p.key_length * head.stride + column;
  head.v = v.data<T>() + row * p.key_length * head.stride + column;
  if (bias.defined()) {
    head.bias = bias.data<Acc<T>>() + head_index * (p.query_length + p.key_length - 1);
  }
  if (query_segments.defined()) {
    head.query_segments = query_segments.data<int32_t>() + row * p.query_length;
    head.key_segments = key_segments.data<int32_t>() + row * p.key_length;
  }
  head.causal = p.causal;
  head.dropout = p.dropout;
  head.share_over_queries = p.share_over_queries;
  head.dropout_key = p.dropout_key;
  const int64_t total_heads = p.total_heads == 0 ? p.heads : p.total_heads;
  head.first_draw =
      static_cast<uint64_t>(((p.first_row + row) * total_heads + p.first_head + head_index) *
                            (p.share_over_queries ? p.key_length : p.query_length * p.key_length));
  return head;
}

/// Keys that a block of queries may see, and whether segments hide some of them from some query.
struct KeyRange {
  int64_t begin = 0, end = 0;
  bool mixed = false;
};

/// The range for queries [begin, end).
template <class T>
KeyRange visible_keys(const AttentionHead<T>& head, int64_t begin, int64_t end) {
  KeyRange range{0, head.causal ? std::min(head.keys, end) : head.keys, false};
  if (head.query_segments == nullptr) return range;
  const auto ends = std::minmax_element(head.query_segments + begin, head.query_segments + end);
  const auto low = *ends.first, high = *ends.second;
  const auto outside = [&](int64_t j) {
    return head.key_segments[j] < low || head.key_segments[j] > high;
  };
  while (range.begin < range.end && outside(range.begin)) ++range.begin;
  while (range.begin < range.end && outside(range.end - 1)) --range.end;
  range.mixed = low != high;
  for (int64_t j = range.begin; j < range.end && !range.mixed; ++j) range.mixed = outside(j);
  return range;
}

/// Keys [0, visible_before) of the range that causality leaves to query i.
template <class T>
int64_t visible_before(const AttentionHead<T>& head, int64_t i, int64_t end) {
  return head.causal ? std::min(end, i + 1) : end;
}

/// Hides the keys [begin, end) of other segments: scores[j - begin] = -inf.
template <class T>
void hide_other_segments(const AttentionHead<T>& head, int64_t i, int64_t begin, int64_t end,
                         Acc<T>* scores) {
  const int32_t segment = head.query_segments[i];
  const int32_t* segments = head.key_segments + begin;
  for (int64_t j = 0; j < end - begin; ++j) {
    scores[j] = segments[j] == segment ? scores[j] : -std::numeric_limits<Acc<T>>::infinity();
  }
}

/// Of a row whose largest score is hidden, and a search for the largest passes over NaN: whether it
/// has numbers, and so sees none of `count` keys.
template <class A>
bool none_is_nan(const A* scores, int64_t count) {
  bool found = false;
  for (int64_t j = 0; j < count; ++j) found |= scores[j] != scores[j];
  return !found;
}

/// factors[j] = 0 or 1/(1-rate) for keys [begin, begin + count) of query i.
template <class T>
void dropout_factors(const AttentionHead<T>& head, int64_t i, int64_t begin, int64_t count,
                     std::vector<uint32_t>& words, Acc<T>* factors);

/// Rows of a block of queries: few under causality, where half of a square block is wasted.
inline int64_t query_block(int64_t queries, bool causal) {
  const int64_t most = causal ? 36 : 132;
  const int64_t blocks = std::max<int64_t>(1, (queries + most - 1) / most);
  return ((queries + blocks - 1) / blocks + 11) / 12 * 12;
}
inline constexpr int64_t kKeyBlock = 256;

/// Queries at a time in the backward pass: their weights and the gradients of those fit the
/// second-level cache.
template <class T>
int64_t backward_block(const AttentionHead<T>& head) {
  constexpr int64_t kElements = 33 * 1024;
  constexpr int64_t kFewest = 24;
  const int64_t most = std::max(kFewest, kElements / head.keys / 12 * 12);
  return std::min(most, query_block(head.queries, head.causal));
}

/// Stride of a scratch matrix of `columns` columns: no multiple of 4 KiB, which would map its rows
/// to few sets of the cache.
inline int64_t scratch_stride(int64_t columns) { return (columns + 15) / 16 * 16 + 16; }

/// Throws internal unless all tensors of the forward pass fit the params.
void check_attention(const char* where, const Tensor& out, const Tensor& log_sum_exp,
                     const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                     const Tensor& query_segments, const Tensor& key_segments,
                     const AttentionParams& params);

}  // namespace sw::kernels::cpu
