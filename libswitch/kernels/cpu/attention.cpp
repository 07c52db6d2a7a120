// Attention in blocks of queries: the weights of one block against all keys lie in a core's cache,
// are made, used and forgotten; backward makes them again from the saved logarithm of their sum.
// Products run in gemm_tile.
#include "libswitch/kernels/attention.h"

#include <cmath>
#include <limits>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/gemm.h"
#include "libswitch/kernels/cpu/random_words.h"
#include "libswitch/kernels/cpu/scratch.h"
#include "libswitch/kernels/cpu/vector_math.h"

namespace sw::kernels::cpu {
namespace {

// 64 queries x 512 keys in f32 are 128 KiB: two such blocks (weights and their gradient) fit the
// second-level cache.
constexpr int64_t kQueryBlock = 64;

// What is fixed for one (row, head): pointers at its first query and key, and the rules of
// visibility.
template <class T>
struct Head {
  const T *q, *k, *v;                            // [T, ld], [S, ld], [S, ld]
  const Acc<T>* bias;                            // [T+S-1] or null
  const int32_t *query_segments, *key_segments;  // [T], [S] or null
  int64_t ld, dim, queries, keys;
  bool causal;
  RngKey dropout_key;
  uint64_t dropout_base;  // index of the draw of query 0, key 0
  float dropout;
  bool share_over_queries;
};

template <class T>
Head<T> head_at(int64_t task, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                const Tensor& query_segments, const Tensor& key_segments,
                const AttentionParams& p) {
  const int64_t b = task / p.heads, h = task % p.heads;
  Head<T> head;
  head.ld = p.heads * p.head_dim, head.dim = p.head_dim;
  head.queries = p.query_length, head.keys = p.key_length;
  head.q = q.data<T>() + b * p.query_length * head.ld + h * p.head_dim;
  head.k = k.data<T>() + b * p.key_length * head.ld + h * p.head_dim;
  head.v = v.data<T>() + b * p.key_length * head.ld + h * p.head_dim;
  head.bias =
      bias.defined() ? bias.data<Acc<T>>() + h * (p.query_length + p.key_length - 1) : nullptr;
  const bool segments = query_segments.defined();
  head.query_segments = segments ? query_segments.data<int32_t>() + b * p.query_length : nullptr;
  head.key_segments = segments ? key_segments.data<int32_t>() + b * p.key_length : nullptr;
  head.causal = p.causal;
  head.dropout = static_cast<float>(p.dropout);
  head.dropout_key = p.dropout_key;
  head.share_over_queries = p.share_over_queries;
  const auto place = static_cast<uint64_t>((p.first_row + b) * p.heads + h);
  head.dropout_base =
      place *
      static_cast<uint64_t>(p.share_over_queries ? p.key_length : p.query_length * p.key_length);
  return head;
}

// Keys that any query of the block [begin, end) may need. A query that sees nothing takes the mean
// over all keys, and only segments can bring that about.
template <class T>
int64_t keys_of_block(const Head<T>& head, int64_t end) {
  return head.causal && head.query_segments == nullptr ? std::min(head.keys, end) : head.keys;
}

// scores[i][j] = q_i·k_j + bias, -inf where the key is invisible; rows of `keys` columns.
template <class T>
void block_scores(const Head<T>& head, int64_t begin, int64_t rows, int64_t keys, Acc<T>* scores) {
  using A = Acc<T>;
  constexpr A kHidden = -std::numeric_limits<A>::infinity();
  gemm_tile(rows, keys, head.dim, head.q + begin * head.ld, head.ld, Transpose::no, head.k, head.ld,
            Transpose::yes, scores, keys, Accum::write);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t i = begin + r;
    A* s = scores + r * keys;
    if (head.bias != nullptr) {
      const A* bias = head.bias + head.queries - 1 - i;
      for (int64_t j = 0; j < keys; ++j) s[j] += bias[j];
    }
    if (head.query_segments != nullptr) {
      const int32_t segment = head.query_segments[i];
      const int32_t* key_segments = head.key_segments;
      for (int64_t j = 0; j < keys; ++j) s[j] = key_segments[j] == segment ? s[j] : kHidden;
    }
    if (head.causal) {
      for (int64_t j = i + 1; j < keys; ++j) s[j] = kHidden;
    }
  }
}

// Factors 0 or 1/(1-rate) of the attention weights.
class DropoutMask {
 public:
  template <class T>
  DropoutMask(const Head<T>& head, int64_t keys, std::vector<uint32_t>& words,
              std::vector<float>& factors)
      : keys_(keys), active_(head.dropout > 0), words_(words), factors_(factors) {
    if (!active_) return;
    words_.resize(static_cast<size_t>(keys));
    factors_.resize(static_cast<size_t>(keys));
    if (head.share_over_queries) draw(head, head.dropout_base);
  }
  bool active() const { return active_; }
  /// Factors of query i.
  template <class T>
  const float* row(const Head<T>& head, int64_t i) {
    if (!head.share_over_queries) {
      draw(head, head.dropout_base + static_cast<uint64_t>(i * head.keys));
    }
    return factors_.data();
  }

 private:
  template <class T>
  void draw(const Head<T>& head, uint64_t first) {
    random_words(head.dropout_key, first, words_);
    const float keep = 1.0f / (1.0f - head.dropout);
    for (int64_t j = 0; j < keys_; ++j) {
      factors_[static_cast<size_t>(j)] =
          uniform_of(words_[static_cast<size_t>(j)]) >= head.dropout ? keep : 0.0f;
    }
  }
  int64_t keys_;
  bool active_;
  std::vector<uint32_t>& words_;
  std::vector<float>& factors_;
};

// The block in the type of the other operand of its product: itself, or rounded.
template <class T>
const T* as_operand(const Acc<T>* block, int64_t count, Scratch& scratch) {
  if constexpr (std::is_same_v<T, Acc<T>>) {
    return block;
  } else {
    T* rounded = scratch.get<T>(count);
    for (int64_t i = 0; i < count; ++i) store(rounded, i, block[i]);
    return rounded;
  }
}

// Softmax of one row in place; returns log Σ exp, +inf for a row that sees nothing (then uniform
// over all keys).
template <class A>
A softmax_row(A* s, int64_t keys) {
  constexpr A kHidden = -std::numeric_limits<A>::infinity();
  const A largest = lane_max<A>(keys, kHidden, [&](int64_t j) { return s[j]; });
  if (largest == kHidden) {
    const A uniform = A(1) / static_cast<A>(keys);
    for (int64_t j = 0; j < keys; ++j) s[j] = uniform;
    return std::numeric_limits<A>::infinity();
  }
  for (int64_t j = 0; j < keys; ++j) s[j] = vector_exp(s[j] - largest);
  const A sum = lane_sum<A>(keys, [&](int64_t j) { return s[j]; });
  const A inverse = A(1) / sum;
  for (int64_t j = 0; j < keys; ++j) s[j] *= inverse;
  return largest + std::log(sum);
}

template <class T>
void forward_block(const Head<T>& head, int64_t begin, T* out, Acc<T>* log_sum_exp) {
  using A = Acc<T>;
  static thread_local Scratch score_scratch, operand_scratch;
  static thread_local std::vector<uint32_t> words;
  static thread_local std::vector<float> factors;
  const int64_t rows = std::min(kQueryBlock, head.queries - begin);
  const int64_t keys = keys_of_block(head, begin + rows);
  A* weights = score_scratch.get<A>(rows * keys);
  block_scores(head, begin, rows, keys, weights);
  DropoutMask mask(head, keys, words, factors);
  for (int64_t r = 0; r < rows; ++r) {
    A* w = weights + r * keys;
    log_sum_exp[begin + r] = softmax_row(w, keys);
    if (mask.active()) {
      const float* factor = mask.row(head, begin + r);
      for (int64_t j = 0; j < keys; ++j) w[j] *= static_cast<A>(factor[j]);
    }
  }
  gemm_tile(rows, head.dim, keys, as_operand<T>(weights, rows * keys, operand_scratch), keys,
            Transpose::no, head.v, head.ld, Transpose::no, out + begin * head.ld, head.ld,
            Accum::write);
}

template <class T>
void forward(Tensor& out, Tensor& log_sum_exp, const Tensor& q, const Tensor& k, const Tensor& v,
             const Tensor& bias, const Tensor& query_segments, const Tensor& key_segments,
             const AttentionParams& p) {
  const int64_t blocks = (p.query_length + kQueryBlock - 1) / kQueryBlock;
  parallel_for(p.batch * p.heads * blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t task = unit / blocks;
      const Head<T> head = head_at<T>(task, q, k, v, bias, query_segments, key_segments, p);
      const int64_t b = task / p.heads, h = task % p.heads;
      forward_block(head, unit % blocks * kQueryBlock,
                    out.data<T>() + b * p.query_length * head.ld + h * p.head_dim,
                    log_sum_exp.data<Acc<T>>() + task * p.query_length);
    }
  });
}

// Buffers of one thread's backward pass, kept between calls.
struct BackwardScratch {
  Scratch weights, d_weights, masked, d_key, d_value, operand_w, operand_d;
  std::vector<uint32_t> words;
  std::vector<float> factors;
};

// Gradients of one (row, head): the only writer of its columns of d_q, d_k, d_v and of d_bias
// [T+S-1] (null: not wanted).
template <class T>
class HeadBackward {
 public:
  using A = Acc<T>;
  HeadBackward(const Head<T>& head, const T* out, const T* d_out, const A* log_sum_exp, A* d_bias,
               BackwardScratch& scratch)
      : head_(head),
        out_(out),
        d_out_(d_out),
        log_sum_exp_(log_sum_exp),
        d_bias_(d_bias),
        scratch_(scratch),
        mask_(head, head.keys, scratch.words, scratch.factors) {
    const int64_t size = head.keys * head.dim;
    d_key_ = scratch.d_key.get<A>(size);
    d_value_ = scratch.d_value.get<A>(size);
    std::fill(d_key_, d_key_ + size, A(0));
    std::fill(d_value_, d_value_ + size, A(0));
    if (d_bias != nullptr) std::fill(d_bias, d_bias + head.queries + head.keys - 1, A(0));
  }

  void run(T* d_q, Accum accum_q, T* d_k, Accum accum_k, T* d_v, Accum accum_v) {
    for (int64_t begin = 0; begin < head_.queries; begin += kQueryBlock) {
      block(begin, d_q, accum_q);
    }
    put_rows(d_k, accum_k, d_key_);
    put_rows(d_v, accum_v, d_value_);
  }

 private:
  void block(int64_t begin, T* d_q, Accum accum_q) {
    const int64_t rows = std::min(kQueryBlock, head_.queries - begin);
    const int64_t keys = keys_of_block(head_, begin + rows);
    A* w = scratch_.weights.get<A>(rows * keys);
    A* d_w = scratch_.d_weights.get<A>(rows * keys);
    block_scores(head_, begin, rows, keys, w);
    for (int64_t r = 0; r < rows; ++r) restore_weights(w + r * keys, keys, log_sum_exp_[begin + r]);

    const T* d_out = d_out_ + begin * head_.ld;
    const A* kept = w;  // the weights that met the values: with dropout's factors
    if (mask_.active()) {
      A* masked = scratch_.masked.get<A>(rows * keys);
      for (int64_t r = 0; r < rows; ++r) {
        const float* factor = mask_.row(head_, begin + r);
        for (int64_t j = 0; j < keys; ++j) {
          masked[r * keys + j] = w[r * keys + j] * static_cast<A>(factor[j]);
        }
      }
      kept = masked;
    }
    gemm_tile(keys, head_.dim, rows, as_operand<T>(kept, rows * keys, scratch_.operand_w), keys,
              Transpose::yes, d_out, head_.ld, Transpose::no, d_value_, head_.dim, Accum::add);
    gemm_tile(rows, keys, head_.dim, d_out, head_.ld, Transpose::no, head_.v, head_.ld,
              Transpose::yes, d_w, keys, Accum::write);
    for (int64_t r = 0; r < rows; ++r)
      score_gradient(begin + r, w + r * keys, d_w + r * keys, keys);

    const T* d_scores = as_operand<T>(d_w, rows * keys, scratch_.operand_d);
    gemm_tile(rows, head_.dim, keys, d_scores, keys, Transpose::no, head_.k, head_.ld,
              Transpose::no, d_q + begin * head_.ld, head_.ld, accum_q);
    gemm_tile(keys, head_.dim, rows, d_scores, keys, Transpose::yes, head_.q + begin * head_.ld,
              head_.ld, Transpose::no, d_key_, head_.dim, Accum::add);
  }

  static void restore_weights(A* s, int64_t keys, A log_sum_exp) {
    if (std::isinf(log_sum_exp)) {
      for (int64_t j = 0; j < keys; ++j) s[j] = A(1) / static_cast<A>(keys);
      return;
    }
    for (int64_t j = 0; j < keys; ++j) s[j] = vector_exp(s[j] - log_sum_exp);
  }

  // d_w from the gradient of the (masked) weights to that of the scores: w·(d_w·factor - Σ_j
  // w·d_w·factor), where the sum is the row's d_out·out.
  void score_gradient(int64_t i, const A* w, A* d_w, int64_t keys) {
    if (std::isinf(log_sum_exp_[i])) {
      std::fill(d_w, d_w + keys, A(0));
      return;
    }
    const T* out = out_ + i * head_.ld;
    const T* d_out = d_out_ + i * head_.ld;
    const A dot = lane_sum<A>(head_.dim, [&](int64_t d) { return load(out, d) * load(d_out, d); });
    if (mask_.active()) {
      const float* factor = mask_.row(head_, i);
      for (int64_t j = 0; j < keys; ++j) d_w[j] *= static_cast<A>(factor[j]);
    }
    for (int64_t j = 0; j < keys; ++j) d_w[j] = w[j] * (d_w[j] - dot);
    if (d_bias_ != nullptr) {
      A* d_bias = d_bias_ + head_.queries - 1 - i;
      for (int64_t j = 0; j < keys; ++j) d_bias[j] += d_w[j];
    }
  }

  void put_rows(T* y, Accum accum, const A* sums) const {
    with_accum(accum, [&](auto add) {
      for (int64_t j = 0; j < head_.keys; ++j) {
        for (int64_t d = 0; d < head_.dim; ++d)
          put(add, y + j * head_.ld, d, sums[j * head_.dim + d]);
      }
    });
  }

  const Head<T>& head_;
  const T *out_, *d_out_;
  const A* log_sum_exp_;
  A *d_bias_, *d_key_, *d_value_;
  BackwardScratch& scratch_;
  DropoutMask mask_;
};

template <class T>
void backward(Tensor& d_q, Accum accum_q, Tensor& d_k, Accum accum_k, Tensor& d_v, Accum accum_v,
              Tensor& d_bias, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
              const Tensor& query_segments, const Tensor& key_segments, const Tensor& out,
              const Tensor& log_sum_exp, const Tensor& d_out, const AttentionParams& p) {
  using A = Acc<T>;
  const int64_t diagonals = p.query_length + p.key_length - 1;
  Tensor partial;  // d_bias of every batch row, summed in their order afterwards
  if (d_bias.defined()) {
    partial = Tensor::empty({p.batch * p.heads, diagonals}, dtype_of<A>());
  }
  parallel_for(p.batch * p.heads, 1, [&](int64_t first, int64_t last) {
    static thread_local BackwardScratch scratch;
    for (int64_t task = first; task < last; ++task) {
      const Head<T> head = head_at<T>(task, q, k, v, bias, query_segments, key_segments, p);
      const int64_t column = task % p.heads * p.head_dim;
      const int64_t at_query = task / p.heads * p.query_length * head.ld + column;
      const int64_t at_key = task / p.heads * p.key_length * head.ld + column;
      HeadBackward<T>(head, out.data<T>() + at_query, d_out.data<T>() + at_query,
                      log_sum_exp.data<A>() + task * p.query_length,
                      partial.defined() ? partial.data<A>() + task * diagonals : nullptr, scratch)
          .run(d_q.data<T>() + at_query, accum_q, d_k.data<T>() + at_key, accum_k,
               d_v.data<T>() + at_key, accum_v);
    }
  });
  if (!d_bias.defined()) return;
  A* sums = d_bias.data<A>();
  const A* parts = partial.data<A>();
  parallel_for(p.heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t h = first; h < last; ++h) {
      A* sum = sums + h * diagonals;
      std::copy(parts + h * diagonals, parts + (h + 1) * diagonals, sum);
      for (int64_t b = 1; b < p.batch; ++b) {
        const A* part = parts + (b * p.heads + h) * diagonals;
        for (int64_t d = 0; d < diagonals; ++d) sum[d] += part[d];
      }
    }
  });
}

}  // namespace

void attention_forward(const Stream&, Tensor& out, Tensor& log_sum_exp, const Tensor& q,
                       const Tensor& k, const Tensor& v, const Tensor& bias,
                       const Tensor& query_segments, const Tensor& key_segments,
                       const AttentionParams& params) {
  with_element("attention_forward", q.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    forward<T>(out, log_sum_exp, q, k, v, bias, query_segments, key_segments, params);
  });
}

void attention_backward(const Stream&, Tensor& d_q, Accum accum_q, Tensor& d_k, Accum accum_k,
                        Tensor& d_v, Accum accum_v, Tensor& d_bias, const Tensor& q,
                        const Tensor& k, const Tensor& v, const Tensor& bias,
                        const Tensor& query_segments, const Tensor& key_segments, const Tensor& out,
                        const Tensor& log_sum_exp, const Tensor& d_out,
                        const AttentionParams& params) {
  with_element("attention_backward", q.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    backward<T>(d_q, accum_q, d_k, accum_k, d_v, accum_v, d_bias, q, k, v, bias, query_segments,
                key_segments, out, log_sum_exp, d_out, params);
  });
}

}  // namespace sw::kernels::cpu
