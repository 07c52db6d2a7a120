#include "libswitch/kernels/cpu/attention_head.h"

#include "libswitch/kernels/cpu/random_words.h"

namespace sw::kernels::cpu {

template <class T>
void dropout_factors(const AttentionHead<T>& head, int64_t i, int64_t begin, int64_t count,
                     std::vector<uint32_t>& words, Acc<T>* factors) {
  words.resize(static_cast<size_t>(count));
  const int64_t row = head.share_over_queries ? 0 : i * head.keys;
  random_words(head.dropout_key, head.first_draw + static_cast<uint64_t>(row + begin), words);
  const uint32_t* word = words.data();
  const float rate = static_cast<float>(head.dropout);
  const Acc<T> kept = static_cast<Acc<T>>(1 / (1 - head.dropout));
  for (int64_t j = 0; j < count; ++j) factors[j] = uniform_of(word[j]) >= rate ? kept : Acc<T>(0);
}
template void dropout_factors(const AttentionHead<float>&, int64_t, int64_t, int64_t,
                              std::vector<uint32_t>&, float*);
template void dropout_factors(const AttentionHead<bf16>&, int64_t, int64_t, int64_t,
                              std::vector<uint32_t>&, float*);
template void dropout_factors(const AttentionHead<double>&, int64_t, int64_t, int64_t,
                              std::vector<uint32_t>&, double*);

void check_attention(const char* where, const Tensor& out, const Tensor& log_sum_exp,
                     const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                     const Tensor& query_segments, const Tensor& key_segments,
                     const AttentionParams& p) {
  SW_CHECK(p.batch >= 0 && p.heads >= 1 && p.head_dim >= 1 && p.query_length >= 0 &&
               p.key_length >= (p.query_length > 0 ? 1 : 0),
           internal, "{}: batch {}, heads {}, head_dim {}, query_length {}, key_length {}", where,
           p.batch, p.heads, p.head_dim, p.query_length, p.key_length);
  SW_CHECK(
      p.first_head >= 0 && p.first_head + p.heads <= (p.total_heads == 0 ? p.heads : p.total_heads),
      internal, "{}: heads {} to {} of {}", where, p.first_head, p.first_head + p.heads,
      p.total_heads);
  SW_CHECK(p.dropout >= 0 && p.dropout < 1, internal, "{}: dropout {} is not in [0, 1)", where,
           p.dropout);
  SW_CHECK(q.defined() && is_floating(q.dtype()), internal, "{}: q: expected f32, bf16 or f64",
           where);
  const DType dtype = q.dtype(), master = master_dtype(dtype);
  const int64_t width = p.heads * p.head_dim;
  const Shape queries{p.batch * p.query_length, width}, keys{p.batch * p.key_length, width};
  check_tensor(where, "q", q, queries, dtype);
  check_tensor(where, "k", k, keys, dtype);
  check_tensor(where, "v", v, keys, dtype);
  check_tensor(where, "out", out, queries, dtype);
  check_tensor(where, "log_sum_exp", log_sum_exp, {p.batch, p.heads, p.query_length}, master);
  if (bias.defined()) {
    check_tensor(where, "bias", bias, {p.heads, p.query_length + p.key_length - 1}, master);
  }
  SW_CHECK(query_segments.defined() == key_segments.defined(), internal,
           "{}: query_segments and key_segments go together", where);
  if (query_segments.defined()) {
    check_tensor(where, "query_segments", query_segments, {p.batch, p.query_length}, DType::i32);
    check_tensor(where, "key_segments", key_segments, {p.batch, p.key_length}, DType::i32);
  }
}

}  // namespace sw::kernels::cpu
