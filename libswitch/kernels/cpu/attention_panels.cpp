#include "libswitch/kernels/cpu/attention_panels.h"

#include <cmath>

#include "libswitch/kernels/cpu/attention_rows.h"
#include "libswitch/kernels/cpu/matmul_panels.h"

namespace sw::kernels::cpu {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

// [words] panels of a product's right side, packed.
template <class T>
const uint32_t* packed(Scratch& scratch, const T* x, int64_t stride, bool transposed, int64_t k,
                       int64_t n) {
  uint32_t* panels = scratch.get<uint32_t>(panel_words<T>(k, n));
  pack_panels(x, stride, transposed, k, n, panels);
  return panels;
}

template <class T>
float* shared_dropout(const AttentionHead<T>& head, Scratch& scratch,
                      std::vector<uint32_t>& words) {
  if (head.dropout == 0 || !head.share_over_queries) return nullptr;
  float* factors = scratch.get<float>(head.keys);
  dropout_factors(head, 0, 0, head.keys, words, factors);
  return factors;
}

// Factors of query i for keys [key, key + count), or null.
template <class T>
const float* row_factors(const AttentionHead<T>& head, const float* shared, int64_t i, int64_t key,
                         int64_t count, Scratch& scratch, std::vector<uint32_t>& words) {
  if (head.dropout == 0) return nullptr;
  if (shared != nullptr) return shared + key;
  float* factors = scratch.get<float>(head.keys);
  dropout_factors(head, i, key, count, words, factors);
  return factors;
}

// The range from the beginning of a panel: what it gains is hidden like other segments.
KeyRange from_panel(KeyRange range) {
  const int64_t begin = range.begin / kPanelColumns * kPanelColumns;
  if (begin < range.begin) range.mixed = true;
  range.begin = begin;
  return range;
}

}  // namespace

template <class T>
PanelForward<T>::PanelForward(const AttentionHead<T>& head, Buffers& buffers)
    : head_(head), buffers_(buffers) {
  k_ = packed(buffers.k, head.k, head.stride, true, head.dim, head.keys);
  v_ = packed(buffers.v, head.v, head.stride, false, head.keys, head.dim);
  shared_factors_ = shared_dropout(head, buffers.factors, buffers.words);
}

template <class T>
void PanelForward<T>::block(int64_t begin, int64_t end, T* out, float* log_sum_exp) {
  const int64_t rows = end - begin, dim = head_.dim;
  KeyRange range = visible_keys(head_, begin, end);
  sums_ = buffers_.sums.template get<float>(rows * dim);
  largest_ = buffers_.state.template get<float>(2 * rows);
  total_ = largest_ + rows;
  std::fill_n(largest_, rows, kHidden);
  std::fill_n(total_, rows, 0.0f);
  if (range.begin == range.end) {
    std::fill_n(sums_, rows * dim, 0.0f);
  } else {
    range = from_panel(range);
  }
  for (int64_t key = range.begin; key < range.end; key += kKeyBlock) {
    keys(begin, rows, key, std::min(kKeyBlock, range.end - key), range);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t i = begin + r;
    T* y = out + i * head_.stride;
    log_sum_exp[i] = largest_[r] + std::log(total_[r]);
    if (total_[r] == 0) {
      mean_of_values(i, y);
      continue;
    }
    const float factor = 1.0f / total_[r];
    for (int64_t d = 0; d < dim; ++d) store(y, d, sums_[r * dim + d] * factor);
  }
}

// Adds the keys [key, key + count) to the sums of the block's rows.
template <class T>
void PanelForward<T>::keys(int64_t begin, int64_t rows, int64_t key, int64_t count,
                           const KeyRange& range) {
  const int64_t dim = head_.dim, stride = scratch_stride(count);
  float* scores = buffers_.scores.template get<float>(rows * stride);
  T* weights = buffers_.weights.template get<T>(rows * stride);
  const bool first = key == range.begin;
  multiply_panels(rows, count, dim, head_.q + begin * head_.stride, head_.stride, false,
                  k_ + key * words_of<T>(dim), words_of<T>(dim) * kPanelColumns, scores, stride,
                  false);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t i = begin + r;
    float* s = scores + r * stride;
    T* w = weights + r * stride;
    const int64_t visible = std::max<int64_t>(0, visible_before(head_, i, key + count) - key);
    if (range.mixed) hide_other_segments(head_, i, key, key + visible, s);
    const float* bias = head_.bias == nullptr ? nullptr : head_.bias + head_.queries - 1 - i + key;
    const float largest = std::max(largest_[r], add_bias_row(s, bias, visible));
    if (largest == kHidden && none_is_nan(s, visible)) {
      std::fill_n(w, count, T{});
      continue;
    }
    const float before = std::exp(largest_[r] - largest);
    largest_[r] = largest;
    const float* factors =
        row_factors(head_, shared_factors_, i, key, visible, buffers_.factors, buffers_.words);
    total_[r] = total_[r] * before + exponential_row(s, largest, factors, visible, count, w);
    if (!first && before != 1.0f) {
      for (int64_t d = 0; d < dim; ++d) sums_[r * dim + d] *= before;
    }
  }
  multiply_panels(rows, dim, count, weights, stride, false, v_ + words_of<T>(key) * kPanelColumns,
                  words_of<T>(head_.keys) * kPanelColumns, sums_, dim, !first);
}

// The result of query i that sees no key: its weights are equal.
template <class T>
void PanelForward<T>::mean_of_values(int64_t i, T* y) {
  const int64_t dim = head_.dim;
  const float* factors =
      row_factors(head_, shared_factors_, i, 0, head_.keys, buffers_.factors, buffers_.words);
  float* mean = buffers_.mean.template get<float>(dim);
  std::fill_n(mean, dim, 0.0f);
  for (int64_t j = 0; j < head_.keys; ++j) {
    const float factor = factors == nullptr ? 1.0f : factors[j];
    for (int64_t d = 0; d < dim; ++d) mean[d] += factor * load(head_.v, j * head_.stride + d);
  }
  for (int64_t d = 0; d < dim; ++d) store(y, d, mean[d] / static_cast<float>(head_.keys));
}

template class PanelForward<float>;
template class PanelForward<bf16>;

template <class T>
PanelBackward<T>::PanelBackward(const AttentionHead<T>& head, const T* d_out,
                                const float* log_sum_exp, const Gradients& gradients,
                                Buffers& buffers)
    : head_(head), d_out_(d_out), log_sum_exp_(log_sum_exp), to_(gradients), buffers_(buffers) {
  const int64_t dim = head.dim, keys = head.keys;
  k_ = packed(buffers.k, head.k, head.stride, true, dim, keys);
  v_ = packed(buffers.v, head.v, head.stride, true, dim, keys);
  k_rows_ = packed(buffers.k_rows, head.k, head.stride, false, keys, dim);
  shared_factors_ = shared_dropout(head, buffers.factors, buffers.words);
  d_k_ = buffers.d_k.template get<float>(keys * dim);
  d_v_ = buffers.d_v.template get<float>(keys * dim);
  std::fill_n(d_k_, keys * dim, 0.0f);
  std::fill_n(d_v_, keys * dim, 0.0f);
  if (to_.d_bias != nullptr) std::fill_n(to_.d_bias, head.queries + keys - 1, 0.0f);
}

template <class T>
void PanelBackward<T>::run() {
  const int64_t block = backward_block(head_);
  for (int64_t begin = 0; begin < head_.queries; begin += block) {
    queries(begin, std::min(head_.queries, begin + block));
  }
  put_rows(to_.d_k, to_.accum_k, head_.keys, d_k_);
  put_rows(to_.d_v, to_.accum_v, head_.keys, d_v_);
}

template <class T>
void PanelBackward<T>::queries(int64_t begin, int64_t end) {
  const int64_t rows = end - begin;
  const KeyRange range = visible_keys(head_, begin, end);
  if (range.begin == range.end) {
    float* d_q = buffers_.d_q.template get<float>(rows * head_.dim);
    std::fill_n(d_q, rows * head_.dim, 0.0f);
    put_rows(to_.d_q + begin * head_.stride, to_.accum_q, rows, d_q);
  } else {
    products(begin, rows, from_panel(range));
  }
  if (head_.query_segments == nullptr) return;
  for (int64_t i = begin; i < end; ++i) {
    if (sees_nothing(i)) uniform_row(i);
  }
}

// The queries [begin, begin + rows) and the keys that they see.
template <class T>
void PanelBackward<T>::products(int64_t begin, int64_t rows, const KeyRange& range) {
  const int64_t dim = head_.dim, key = range.begin, count = range.end - range.begin;
  const int64_t stride = scratch_stride(count), row_words = words_of<T>(dim) * kPanelColumns;
  const T* q = head_.q + begin * head_.stride;
  const T* d_out = d_out_ + begin * head_.stride;
  float* scores = buffers_.scores.template get<float>(rows * stride);
  float* d_weights = buffers_.d_weights.template get<float>(rows * stride);
  T* weights = buffers_.weights.template get<T>(rows * stride);
  T* d_scores = buffers_.d_scores.template get<T>(rows * stride);
  const int64_t at_key = key * words_of<T>(dim);
  multiply_panels(rows, count, dim, q, head_.stride, false, k_ + at_key, row_words, scores, stride,
                  false);
  multiply_panels(rows, count, dim, d_out, head_.stride, false, v_ + at_key, row_words, d_weights,
                  stride, false);
  for (int64_t r = 0; r < rows; ++r) {
    score_gradients(begin + r, range, scores + r * stride, d_weights + r * stride,
                    weights + r * stride, d_scores + r * stride);
  }
  const int64_t block_words = words_of<T>(rows) * kPanelColumns;
  multiply_panels(count, dim, rows, weights, stride, true,
                  packed(buffers_.d_out, d_out, head_.stride, false, rows, dim), block_words,
                  d_v_ + key * dim, dim, true);
  multiply_panels(count, dim, rows, d_scores, stride, true,
                  packed(buffers_.q, q, head_.stride, false, rows, dim), block_words,
                  d_k_ + key * dim, dim, true);
  float* d_q = buffers_.d_q.template get<float>(rows * dim);
  multiply_panels(rows, dim, count, d_scores, stride, false,
                  k_rows_ + words_of<T>(key) * kPanelColumns,
                  words_of<T>(head_.keys) * kPanelColumns, d_q, dim, false);
  put_rows(to_.d_q + begin * head_.stride, to_.accum_q, rows, d_q);
}

// From the scores s and the gradient d_w of the weights that met the values to those weights and
// the gradient of the scores.
template <class T>
void PanelBackward<T>::score_gradients(int64_t i, const KeyRange& range, float* s, float* d_w,
                                       T* weights, T* d_scores) {
  const int64_t key = range.begin, count = range.end - range.begin;
  const int64_t visible =
      sees_nothing(i) ? 0 : std::max<int64_t>(0, visible_before(head_, i, range.end) - key);
  if (range.mixed) hide_other_segments(head_, i, key, key + visible, s);
  const int64_t diagonal = head_.queries - 1 - i + key;
  const float* bias = head_.bias == nullptr ? nullptr : head_.bias + diagonal;
  const float* factors =
      row_factors(head_, shared_factors_, i, key, visible, buffers_.factors, buffers_.words);
  const float sum = weight_row(s, bias, log_sum_exp_[i], d_w, factors, visible, count, weights);
  score_gradient_row(s, d_w, factors, sum, visible, count,
                     to_.d_bias == nullptr ? nullptr : to_.d_bias + diagonal, d_scores);
}

// Query i saw no key: its weights were 1/S, whatever q, k and bias.
template <class T>
void PanelBackward<T>::uniform_row(int64_t i) {
  const int64_t dim = head_.dim;
  const T* d_out = d_out_ + i * head_.stride;
  const float weight = 1.0f / static_cast<float>(head_.keys);
  const float* factors =
      row_factors(head_, shared_factors_, i, 0, head_.keys, buffers_.factors, buffers_.words);
  for (int64_t j = 0; j < head_.keys; ++j) {
    const float factor = factors == nullptr ? weight : weight * factors[j];
    for (int64_t d = 0; d < dim; ++d) d_v_[j * dim + d] += factor * load(d_out, d);
  }
}

// Rows of dense sums [rows, dim] to columns of a gradient.
template <class T>
void PanelBackward<T>::put_rows(T* y, Accum accum, int64_t rows, const float* sums) const {
  with_accum(accum, [&](auto add) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t d = 0; d < head_.dim; ++d) {
        put(add, y + r * head_.stride, d, sums[r * head_.dim + d]);
      }
    }
  });
}

template class PanelBackward<float>;
template class PanelBackward<bf16>;

}  // namespace sw::kernels::cpu
