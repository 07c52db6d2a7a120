// Gradients of attention in blocks of queries against all their keys: the weights are made again
// from the scores and the saved logarithm of their sum. Unlike FlashAttention (Dao et al. 2022,
// algorithm 4) the row sums Σ_j w·d_w are taken from the block, not as d_out·out: out is rounded to
// its dtype, and with it the gradients of a row's scores would not sum to zero.
#include <cmath>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/attention_head.h"
#include "libswitch/kernels/cpu/attention_panels.h"
#include "libswitch/kernels/cpu/gemm.h"
#include "libswitch/kernels/cpu/matmul_pack.h"
#include "libswitch/kernels/cpu/matmul_panels.h"
#include "libswitch/kernels/cpu/vector_math.h"

namespace sw::kernels::cpu {
namespace {

// Gradients of one (row, head): the only writer of its columns of d_q, d_k and d_v and of its
// partial d_bias.
template <class T>
class HeadBackward {
 public:
  using A = Acc<T>;
  struct Buffers {
    Scratch k, k_transposed, v_transposed, q, d_out, weights, d_weights, kept, factors;
    Scratch d_q, d_k, d_v, uniform;
    std::vector<uint32_t> words;
  };
  struct Gradients {
    T *d_q, *d_k, *d_v;  // like q, k, v of the head
    Accum accum_q, accum_k, accum_v;
    A* d_bias;  // [T+S-1] or null
  };

  HeadBackward(const AttentionHead<T>& head, const T* d_out, const A* log_sum_exp,
               const Gradients& gradients, Buffers& buffers)
      : head_(head), d_out_(d_out), log_sum_exp_(log_sum_exp), to_(gradients), buffers_(buffers) {
    const int64_t dim = head.dim, keys = head.keys;
    own_dropout_ = head.dropout > 0 && !head.share_over_queries;
    stride_keys_ = scratch_stride(keys);
    k_ = buffers.k.template get<A>(keys * dim);
    pack(head.k, head.stride, keys, dim, k_, dim);
    k_transposed_ = buffers.k_transposed.template get<A>(dim * stride_keys_);
    pack_transposed(head.k, head.stride, keys, dim, k_transposed_, stride_keys_);
    v_transposed_ = buffers.v_transposed.template get<A>(dim * stride_keys_);
    pack_transposed(head.v, head.stride, keys, dim, v_transposed_, stride_keys_);
    if (head.dropout > 0 && head.share_over_queries) {
      // A factor of a key's weights is one of its values, here and in d_v.
      shared_factors_ = buffers.factors.template get<A>(keys);
      dropout_factors(head, 0, 0, keys, buffers.words, shared_factors_);
      for (int64_t d = 0; d < dim; ++d) {
        A* x = v_transposed_ + d * stride_keys_;
        for (int64_t j = 0; j < keys; ++j) x[j] *= shared_factors_[j];
      }
    }
    d_k_ = buffers.d_k.template get<A>(keys * dim);
    d_v_ = buffers.d_v.template get<A>(keys * dim);
    std::fill_n(d_k_, keys * dim, A(0));
    std::fill_n(d_v_, keys * dim, A(0));
    if (to_.d_bias != nullptr) std::fill_n(to_.d_bias, head.queries + keys - 1, A(0));
  }

  void run() {
    const int64_t block = backward_block(head_);
    for (int64_t begin = 0; begin < head_.queries; begin += block) {
      queries(begin, std::min(head_.queries, begin + block));
    }
    if (shared_factors_ != nullptr) {
      for (int64_t j = 0; j < head_.keys; ++j) {
        for (int64_t d = 0; d < head_.dim; ++d) d_v_[j * head_.dim + d] *= shared_factors_[j];
      }
    }
    put_rows(to_.d_k, to_.accum_k, head_.keys, d_k_);
    put_rows(to_.d_v, to_.accum_v, head_.keys, d_v_);
  }

 private:
  void queries(int64_t begin, int64_t end) {
    const int64_t rows = end - begin, dim = head_.dim;
    const KeyRange range = visible_keys(head_, begin, end);
    A* q = buffers_.q.template get<A>(rows * dim);
    A* d_out = buffers_.d_out.template get<A>(rows * dim);
    A* d_q = buffers_.d_q.template get<A>(rows * dim);
    pack(head_.q + begin * head_.stride, head_.stride, rows, dim, q, dim);
    pack(d_out_ + begin * head_.stride, head_.stride, rows, dim, d_out, dim);
    if (range.begin == range.end) {
      std::fill_n(d_q, rows * dim, A(0));
    } else {
      products(q, d_out, d_q, begin, rows, range);
    }
    put_rows(to_.d_q + begin * head_.stride, to_.accum_q, rows, d_q);
    if (head_.query_segments == nullptr) return;
    for (int64_t r = 0; r < rows; ++r) {
      if (sees_nothing(begin + r)) uniform_row(begin + r, d_out + r * dim);
    }
  }

  bool sees_nothing(int64_t i) const {
    return log_sum_exp_[i] == -std::numeric_limits<A>::infinity();
  }

  // The queries [begin, begin + rows) and the keys that they see.
  void products(const A* q, const A* d_out, A* d_q, int64_t begin, int64_t rows,
                const KeyRange& range) {
    const int64_t dim = head_.dim, key = range.begin, count = range.end - range.begin;
    const int64_t stride = scratch_stride(count);
    A* weights = buffers_.weights.template get<A>(rows * stride);
    A* d_weights = buffers_.d_weights.template get<A>(rows * stride);
    gemm_tile(rows, count, dim, q, dim, Transpose::no, k_transposed_ + key, stride_keys_,
              Transpose::no, weights, stride, Accum::write);
    gemm_tile(rows, count, dim, d_out, dim, Transpose::no, v_transposed_ + key, stride_keys_,
              Transpose::no, d_weights, stride, Accum::write);
    const A* kept = weights;  // the weights that met the values
    A* dropped = nullptr;
    if (own_dropout_) kept = dropped = buffers_.kept.template get<A>(rows * stride);
    for (int64_t r = 0; r < rows; ++r) {
      score_gradient(begin + r, range, weights + r * stride, d_weights + r * stride,
                     own_dropout_ ? dropped + r * stride : nullptr);
    }
    gemm_tile(count, dim, rows, kept, stride, Transpose::yes, d_out, dim, Transpose::no,
              d_v_ + key * dim, dim, Accum::add);
    gemm_tile(rows, dim, count, d_weights, stride, Transpose::no, k_ + key * dim, dim,
              Transpose::no, d_q, dim, Accum::write);
    gemm_tile(count, dim, rows, d_weights, stride, Transpose::yes, q, dim, Transpose::no,
              d_k_ + key * dim, dim, Accum::add);
  }

  // From scores to weights w, and from the gradient d_w of the weights that met the values to that
  // of the scores: w·(d_w·factor - Σ_j w·d_w·factor).
  void score_gradient(int64_t i, const KeyRange& range, A* __restrict w, A* __restrict d_w,
                      A* __restrict dropped) {
    const int64_t key = range.begin, count = range.end - range.begin;
    const int64_t visible =
        sees_nothing(i) ? 0 : std::max<int64_t>(0, visible_before(head_, i, range.end) - key);
    if (range.mixed) hide_other_segments(head_, i, key, key + visible, w);
    const A log_sum_exp = log_sum_exp_[i];
    const int64_t diagonal = head_.queries - 1 - i + key;
    if (head_.bias != nullptr) {
      const A* bias = head_.bias + diagonal;
      for (int64_t j = 0; j < visible; ++j) w[j] = vector_exp(w[j] + (bias[j] - log_sum_exp));
    } else {
      for (int64_t j = 0; j < visible; ++j) w[j] = vector_exp(w[j] - log_sum_exp);
    }
    if (own_dropout_) {
      A* factors = buffers_.factors.template get<A>(count);
      dropout_factors(head_, i, key, visible, buffers_.words, factors);
      for (int64_t j = 0; j < visible; ++j) {
        dropped[j] = w[j] * factors[j];
        d_w[j] *= factors[j];
      }
      std::fill(dropped + visible, dropped + count, A(0));
    }
    const A sum = lane_sum<A>(visible, [w, d_w](int64_t j) { return w[j] * d_w[j]; });
    if (to_.d_bias != nullptr) {
      A* __restrict d_bias = to_.d_bias + diagonal;
      for (int64_t j = 0; j < visible; ++j) {
        const A gradient = w[j] * (d_w[j] - sum);
        d_w[j] = gradient;
        d_bias[j] += gradient;
      }
    } else {
      for (int64_t j = 0; j < visible; ++j) d_w[j] = w[j] * (d_w[j] - sum);
    }
    std::fill(w + visible, w + count, A(0));
    std::fill(d_w + visible, d_w + count, A(0));
  }

  // Query i saw no key: its weights were 1/S, whatever q, k and bias.
  void uniform_row(int64_t i, const A* d_out) {
    const int64_t dim = head_.dim;
    const A weight = A(1) / static_cast<A>(head_.keys);
    A* factors = nullptr;
    if (own_dropout_) {
      factors = buffers_.factors.template get<A>(head_.keys);
      dropout_factors(head_, i, 0, head_.keys, buffers_.words, factors);
    }
    for (int64_t j = 0; j < head_.keys; ++j) {
      const A factor = own_dropout_ ? weight * factors[j] : weight;
      for (int64_t d = 0; d < dim; ++d) d_v_[j * dim + d] += factor * d_out[d];
    }
  }

  // Rows of dense sums [rows, dim] to columns of a gradient.
  void put_rows(T* y, Accum accum, int64_t rows, const A* sums) const {
    with_accum(accum, [&](auto add) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t d = 0; d < head_.dim; ++d) {
          put(add, y + r * head_.stride, d, sums[r * head_.dim + d]);
        }
      }
    });
  }

  const AttentionHead<T>& head_;
  const T* d_out_;
  const A* log_sum_exp_;
  const Gradients& to_;
  Buffers& buffers_;
  bool own_dropout_ = false;     // factors that differ from query to query
  A* shared_factors_ = nullptr;  // [S] or null
  int64_t stride_keys_ = 0;
  A *k_, *k_transposed_, *v_transposed_;  // [S, dim], [dim, stride_keys_] twice
  A *d_k_, *d_v_;                         // [S, dim]
};

template <class T>
void backward(Tensor& d_q, Accum accum_q, Tensor& d_k, Accum accum_k, Tensor& d_v, Accum accum_v,
              Tensor& d_bias, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
              const Tensor& query_segments, const Tensor& key_segments, const Tensor& log_sum_exp,
              const Tensor& d_out, const AttentionParams& p) {
  using A = Acc<T>;
  const int64_t diagonals = p.query_length + p.key_length - 1;
  Tensor partial;  // d_bias of every batch row, summed in their order afterwards
  if (d_bias.defined()) {
    partial = Tensor::empty({p.batch * p.heads, diagonals}, dtype_of<A>());
  }
  parallel_for(p.batch * p.heads, 1, [&](int64_t task, int64_t) {
    const int64_t row = task / p.heads, index = task % p.heads;
    const AttentionHead<T> head =
        attention_head<T>(row, index, q, k, v, bias, query_segments, key_segments, p);
    const int64_t at_query = row * p.query_length * head.stride + index * p.head_dim;
    const int64_t at_key = row * p.key_length * head.stride + index * p.head_dim;
    const auto run = [&]<class Pass>(std::type_identity<Pass>) {
      static thread_local typename Pass::Buffers buffers;
      const typename Pass::Gradients gradients{
          d_q.data<T>() + at_query,
          d_k.data<T>() + at_key,
          d_v.data<T>() + at_key,
          accum_q,
          accum_k,
          accum_v,
          partial.defined() ? partial.data<A>() + task * diagonals : nullptr};
      Pass(head, d_out.data<T>() + at_query, log_sum_exp.data<A>() + task * p.query_length,
           gradients, buffers)
          .run();
    };
    if constexpr (!std::is_same_v<T, double>) {
      if (has_panels<T>()) return run(std::type_identity<PanelBackward<T>>{});
    }
    run(std::type_identity<HeadBackward<T>>{});
  });
  if (!d_bias.defined()) return;
  parallel_for(p.heads, 1, [&](int64_t h, int64_t) {
    A* sum = d_bias.data<A>() + h * diagonals;
    std::fill_n(sum, diagonals, A(0));
    for (int64_t b = 0; b < p.batch; ++b) {
      const A* part = partial.data<A>() + (b * p.heads + h) * diagonals;
      for (int64_t d = 0; d < diagonals; ++d) sum[d] += part[d];
    }
  });
}

}  // namespace

void attention_backward(const Stream&, Tensor& d_q, Accum accum_q, Tensor& d_k, Accum accum_k,
                        Tensor& d_v, Accum accum_v, Tensor& d_bias, const Tensor& q,
                        const Tensor& k, const Tensor& v, const Tensor& bias,
                        const Tensor& query_segments, const Tensor& key_segments, const Tensor& out,
                        const Tensor& log_sum_exp, const Tensor& d_out,
                        const AttentionParams& params) {
  constexpr const char* kWhere = "attention_backward";
  check_attention(kWhere, out, log_sum_exp, q, k, v, bias, query_segments, key_segments, params);
  check_tensor(kWhere, "d_out", d_out, q.shape(), q.dtype());
  check_tensor(kWhere, "d_q", d_q, q.shape(), q.dtype());
  check_tensor(kWhere, "d_k", d_k, k.shape(), q.dtype());
  check_tensor(kWhere, "d_v", d_v, k.shape(), q.dtype());
  if (d_bias.defined()) {
    check_tensor(kWhere, "d_bias", d_bias,
                 {params.heads, params.query_length + params.key_length - 1},
                 master_dtype(q.dtype()));
  }
  with_element(kWhere, q.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    backward<T>(d_q, accum_q, d_k, accum_k, d_v, accum_v, d_bias, q, k, v, bias, query_segments,
                key_segments, log_sum_exp, d_out, params);
  });
}

}  // namespace sw::kernels::cpu
