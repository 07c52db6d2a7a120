// Forward attention in blocks of queries and keys (Dao et al. 2022, FlashAttention, algorithm 1):
// the weights of a block lie in a core's cache, sums are rescaled when a later block holds a larger
// score.
#include "libswitch/kernels/attention.h"

#include <cmath>
#include <cstring>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/attention_head.h"
#include "libswitch/kernels/cpu/attention_panels.h"
#include "libswitch/kernels/cpu/gemm.h"
#include "libswitch/kernels/cpu/matmul_pack.h"
#include "libswitch/kernels/cpu/matmul_panels.h"
#include "libswitch/kernels/cpu/vector_math.h"

namespace sw::kernels::cpu {
namespace {

template <class A>
constexpr A kHidden = -std::numeric_limits<A>::infinity();

// Fewer queries than this use keys and values where they are: packing would cost as much as it
// saves.
constexpr int64_t kFewQueries = 12;

// s += bias (null: 0); returns the largest. In explicit vectors: one pass instead of two.
template <class A>
A add_bias(A* __restrict s, const A* __restrict bias, int64_t count) {
  if (bias == nullptr) return lane_max<A>(count, kHidden<A>, [s](int64_t j) { return s[j]; });
  constexpr int kWidth = 32 / sizeof(A);
  constexpr int kVectors = 4;
  typedef A Vector __attribute__((vector_size(32)));
  Vector top[kVectors];
  for (auto& vector : top) vector = Vector{} + kHidden<A>;
  int64_t j = 0;
  for (; j + kVectors * kWidth <= count; j += kVectors * kWidth) {
#pragma GCC unroll 4
    for (int u = 0; u < kVectors; ++u) {
      Vector x, y;
      std::memcpy(&x, s + j + u * kWidth, sizeof x);
      std::memcpy(&y, bias + j + u * kWidth, sizeof y);
      x += y;
      std::memcpy(s + j + u * kWidth, &x, sizeof x);
      top[u] = x > top[u] ? x : top[u];
    }
  }
  A largest = kHidden<A>;
  for (; j < count; ++j) {
    s[j] += bias[j];
    largest = s[j] > largest ? s[j] : largest;
  }
  for (const auto& vector : top) {
    for (int l = 0; l < kWidth; ++l) largest = vector[l] > largest ? vector[l] : largest;
  }
  return largest;
}

// s = exp(s - largest); returns the sum.
template <class A>
A exponentials(A* s, A largest, int64_t count) {
  for (int64_t j = 0; j < count; ++j) s[j] = vector_exp(s[j] - largest);
  return lane_sum<A>(count, [s](int64_t j) { return s[j]; });
}

template <class T>
class HeadForward {
 public:
  using A = Acc<T>;
  struct Buffers {
    Scratch q, k, v, scores, sums, state, factors, mean;
    std::vector<uint32_t> words;
  };

  HeadForward(const AttentionHead<T>& head, Buffers& buffers) : head_(head), buffers_(buffers) {
    const int64_t dim = head.dim, keys = head.keys;
    shared_dropout_ = head.dropout > 0 && head.share_over_queries;
    direct_ = std::is_same_v<T, A> && !shared_dropout_ && head.queries < kFewQueries;
    if (direct_) return;
    stride_k_ = scratch_stride(keys);
    A* k = buffers.k.template get<A>(dim * stride_k_);
    pack_transposed(head.k, head.stride, keys, dim, k, stride_k_);
    k_ = k;
    A* v = buffers.v.template get<A>(keys * dim);
    pack(head.v, head.stride, keys, dim, v, dim);
    if (shared_dropout_) {
      // A factor of a key's weights is one of its values.
      A* factors = buffers.factors.template get<A>(keys);
      dropout_factors(head, 0, 0, keys, buffers.words, factors);
      for (int64_t j = 0; j < keys; ++j) {
        for (int64_t d = 0; d < dim; ++d) v[j * dim + d] *= factors[j];
      }
    }
    v_ = v;
  }

  /// Queries [begin, end).
  void block(int64_t begin, int64_t end, T* out, A* log_sum_exp) {
    const int64_t rows = end - begin, dim = head_.dim;
    const KeyRange range = visible_keys(head_, begin, end);
    sums_ = buffers_.sums.template get<A>(rows * dim);
    largest_ = buffers_.state.template get<A>(2 * rows);
    total_ = largest_ + rows;
    std::fill_n(largest_, rows, kHidden<A>);
    std::fill_n(total_, rows, A(0));
    if (range.begin == range.end) std::fill_n(sums_, rows * dim, A(0));
    const A* q = nullptr;
    int64_t stride_q = dim;
    if constexpr (std::is_same_v<T, A>) {
      q = head_.q + begin * head_.stride;
      stride_q = head_.stride;
    } else {
      A* packed = buffers_.q.template get<A>(rows * dim);
      pack(head_.q + begin * head_.stride, head_.stride, rows, dim, packed, dim);
      q = packed;
    }
    for (int64_t key = range.begin; key < range.end; key += kKeyBlock) {
      keys(q, stride_q, begin, rows, key, std::min(kKeyBlock, range.end - key), range);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = begin + r;
      T* y = out + i * head_.stride;
      log_sum_exp[i] = largest_[r] + std::log(total_[r]);
      if (total_[r] == A(0)) {
        mean_of_values(i, y);
        continue;
      }
      const A factor = A(1) / total_[r];
      for (int64_t d = 0; d < dim; ++d) store(y, d, sums_[r * dim + d] * factor);
    }
  }

 private:
  // Adds the keys [key, key + count) to the sums of the block's rows.
  void keys(const A* q, int64_t stride_q, int64_t begin, int64_t rows, int64_t key, int64_t count,
            const KeyRange& range) {
    const int64_t dim = head_.dim, stride = scratch_stride(count);
    A* scores = buffers_.scores.template get<A>(rows * stride);
    if (direct_) {
      if constexpr (std::is_same_v<T, A>) {
        gemm_tile(rows, count, dim, q, stride_q, Transpose::no, head_.k + key * head_.stride,
                  head_.stride, Transpose::yes, scores, stride, Accum::write);
      }
    } else {
      gemm_tile(rows, count, dim, q, stride_q, Transpose::no, k_ + key, stride_k_, Transpose::no,
                scores, stride, Accum::write);
    }
    const bool first = key == range.begin;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = begin + r;
      A* s = scores + r * stride;
      const int64_t visible = std::max<int64_t>(0, visible_before(head_, i, key + count) - key);
      if (range.mixed) hide_other_segments(head_, i, key, key + visible, s);
      const A* bias = head_.bias == nullptr ? nullptr : head_.bias + head_.queries - 1 - i + key;
      const A largest = std::max(largest_[r], add_bias(s, bias, visible));
      std::fill(s + visible, s + count, A(0));
      if (largest == kHidden<A> && none_is_nan(s, visible)) {
        std::fill_n(s, visible, A(0));
        continue;
      }
      const A before = std::exp(largest_[r] - largest);
      largest_[r] = largest;
      total_[r] = total_[r] * before + exponentials(s, largest, visible);
      if (!first && before != A(1)) {
        for (int64_t d = 0; d < dim; ++d) sums_[r * dim + d] *= before;
      }
      if (head_.dropout > 0 && !head_.share_over_queries) {
        A* factors = buffers_.factors.template get<A>(count);
        dropout_factors(head_, i, key, count, buffers_.words, factors);
        for (int64_t j = 0; j < count; ++j) s[j] *= factors[j];
      }
    }
    const Accum accum = first ? Accum::write : Accum::add;
    if (direct_) {
      if constexpr (std::is_same_v<T, A>) {
        gemm_tile(rows, dim, count, scores, stride, Transpose::no, head_.v + key * head_.stride,
                  head_.stride, Transpose::no, sums_, dim, accum);
      }
    } else {
      gemm_tile(rows, dim, count, scores, stride, Transpose::no, v_ + key * dim, dim, Transpose::no,
                sums_, dim, accum);
    }
  }

  // The result of query i that sees no key: its weights are equal.
  void mean_of_values(int64_t i, T* y) {
    const int64_t dim = head_.dim;
    A* mean = buffers_.mean.template get<A>(dim);
    std::fill_n(mean, dim, A(0));
    const bool own_dropout = head_.dropout > 0 && !head_.share_over_queries;
    A* factors = nullptr;
    if (own_dropout) {
      factors = buffers_.factors.template get<A>(head_.keys);
      dropout_factors(head_, i, 0, head_.keys, buffers_.words, factors);
    }
    for (int64_t j = 0; j < head_.keys; ++j) {
      const A factor = own_dropout ? factors[j] : A(1);
      for (int64_t d = 0; d < dim; ++d) {
        mean[d] += factor * (direct_ ? load(head_.v, j * head_.stride + d) : v_[j * dim + d]);
      }
    }
    for (int64_t d = 0; d < dim; ++d) store(y, d, mean[d] / static_cast<A>(head_.keys));
  }

  const AttentionHead<T>& head_;
  Buffers& buffers_;
  bool shared_dropout_ = false;
  bool direct_ = false;   // keys and values are used where they are
  const A* k_ = nullptr;  // [dim, stride_k_]: transposed
  int64_t stride_k_ = 0;
  const A* v_ = nullptr;  // [S, dim]
  A* sums_ = nullptr;     // [rows, dim]: weighted values
  A* largest_ = nullptr;  // [rows]: largest score so far
  A* total_ = nullptr;    // [rows]: sum of exp(score - largest)
};

template <class T>
void forward(Tensor& out, Tensor& log_sum_exp, const Tensor& q, const Tensor& k, const Tensor& v,
             const Tensor& bias, const Tensor& query_segments, const Tensor& key_segments,
             const AttentionParams& p) {
  const int64_t block = query_block(p.query_length, p.causal);
  const int64_t blocks = (p.query_length + block - 1) / block;
  const int64_t heads = p.batch * p.heads;
  // A head's blocks share its packed keys: they part only where heads alone are too few.
  const int64_t parts =
      std::clamp<int64_t>((4 * num_threads() + heads - 1) / std::max<int64_t>(heads, 1), 1, blocks);
  parallel_for(heads * parts, 1, [&](int64_t task, int64_t) {
    const int64_t row = task / parts / p.heads, index = task / parts % p.heads;
    const AttentionHead<T> head =
        attention_head<T>(row, index, q, k, v, bias, query_segments, key_segments, p);
    T* y = out.data<T>() + row * p.query_length * head.stride + index * p.head_dim;
    Acc<T>* lse = log_sum_exp.data<Acc<T>>() + task / parts * p.query_length;
    const int64_t part = task % parts;
    const auto run = [&]<class Pass>(std::type_identity<Pass>) {
      static thread_local typename Pass::Buffers buffers;
      Pass pass(head, buffers);
      for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b) {
        pass.block(b * block, std::min(p.query_length, (b + 1) * block), y, lse);
      }
    };
    if constexpr (!std::is_same_v<T, double>) {
      if (has_panels<T>()) return run(std::type_identity<PanelForward<T>>{});
    }
    run(std::type_identity<HeadForward<T>>{});
  });
}

}  // namespace

void attention_forward(const Stream&, Tensor& out, Tensor& log_sum_exp, const Tensor& q,
                       const Tensor& k, const Tensor& v, const Tensor& bias,
                       const Tensor& query_segments, const Tensor& key_segments,
                       const AttentionParams& params) {
  check_attention("attention_forward", out, log_sum_exp, q, k, v, bias, query_segments,
                  key_segments, params);
  if (params.query_length == 0) return;
  with_element("attention_forward", q.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    forward<T>(out, log_sum_exp, q, k, v, bias, query_segments, key_segments, params);
  });
}

}  // namespace sw::kernels::cpu
