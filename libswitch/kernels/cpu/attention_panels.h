// Attention of one head by products of packed panels (matmul_panels.h): the operands of all
// products, weights included, keep the type of the activations; scores, softmax and sums are f32.
#pragma once

#include "libswitch/kernels/cpu/attention_head.h"

namespace sw::kernels::cpu {

/// Forward pass of a head whose keys are packed once, for blocks of its queries. T: float or bf16;
/// has_panels<T>() must hold.
template <class T>
class PanelForward {
 public:
  struct Buffers {
    Scratch k, v, scores, weights, sums, state, factors, mean;
    std::vector<uint32_t> words;
  };

  PanelForward(const AttentionHead<T>& head, Buffers& buffers);

  /// Queries [begin, end): out like q of the head, log_sum_exp [T].
  void block(int64_t begin, int64_t end, T* out, float* log_sum_exp);

 private:
  void keys(int64_t begin, int64_t rows, int64_t key, int64_t count, const KeyRange& range);
  void mean_of_values(int64_t i, T* y);

  const AttentionHead<T>& head_;
  Buffers& buffers_;
  float* shared_factors_ = nullptr;  // [S] or null
  const uint32_t *k_ = nullptr, *v_ = nullptr;
  float* sums_ = nullptr;     // [rows, dim]: weighted values
  float* largest_ = nullptr;  // [rows]: largest score so far
  float* total_ = nullptr;    // [rows]: sum of exp(score - largest)
};

/// Gradients of a head: the only writer of its columns of d_q, d_k and d_v and of d_bias.
template <class T>
class PanelBackward {
 public:
  struct Buffers {
    Scratch k, v, k_rows, q, d_out, scores, d_weights, weights, d_scores, factors;
    Scratch d_q, d_k, d_v;
    std::vector<uint32_t> words;
  };
  struct Gradients {
    T *d_q, *d_k, *d_v;  // like q, k, v of the head
    Accum accum_q, accum_k, accum_v;
    float* d_bias;  // [T+S-1] or null
  };

  PanelBackward(const AttentionHead<T>& head, const T* d_out, const float* log_sum_exp,
                const Gradients& gradients, Buffers& buffers);
  void run();

 private:
  void queries(int64_t begin, int64_t end);
  void products(int64_t begin, int64_t rows, const KeyRange& range);
  void score_gradients(int64_t i, const KeyRange& range, float* s, float* d_w, T* weights,
                       T* d_scores);
  void uniform_row(int64_t i);
  bool sees_nothing(int64_t i) const {
    return log_sum_exp_[i] == -std::numeric_limits<float>::infinity();
  }
  void put_rows(T* y, Accum accum, int64_t rows, const float* sums) const;

  const AttentionHead<T>& head_;
  const T* d_out_;
  const float* log_sum_exp_;
  const Gradients& to_;
  Buffers& buffers_;
  float* shared_factors_ = nullptr;   // [S] or null
  const uint32_t *k_, *v_, *k_rows_;  // panels of keysᵀ, valuesᵀ and keys
  float *d_k_, *d_v_;                 // [S, dim]
};

}  // namespace sw::kernels::cpu
