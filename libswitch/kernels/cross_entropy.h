// The output projection and its softmax cross-entropy in one, over chunks of rows: all logits of a
// batch never exist together.
#pragma once

#include <algorithm>
#include <functional>

#include "libswitch/kernels/kernel.h"
#include "libswitch/kernels/vocabulary.h"

namespace sw::kernels {

struct CrossEntropyParams {
  double logit_scale = 1;  // logits = logit_scale · hidden · tableᵀ (d_model^-1/2 when tied)
  double weight = 1;       // factor of the loss, e.g. 1 / (positions of the whole batch)
  double z_loss = 0;       // adds z_loss · (log Z)² per target
  double label_smoothing = 0;  // mixes the uniform distribution into the target
  int64_t vocab_size = 0;  // logits beyond it (padding rows of the table) are excluded; 0: none are

  // A table of which each rank of a group holds a part.
  VocabularyPart part = {};
  /// Called once for each chunk of rows, on every rank alike: mine [rows, kCrossEntropyStatistics]
  /// f64 of this rank's part -> those of all parts, by rank [parts, rows, kCrossEntropyStatistics].
  /// Undefined: the table is whole.
  std::function<Tensor(const Tensor& mine)> gather_statistics = {};
};

/// What a part of the vocabulary contributes to a row: its largest logit (-inf without any), Σ
/// exp(logit - largest), Σ logit, the target's logit (0 where another part holds it), and 1 if the
/// target is the first of the part's largest.
inline constexpr int64_t kCrossEntropyStatistics = 5;

/// Rows of a chunk over `width` columns of the vocabulary, of the sizes alone. Larger chunks mean
/// fewer passes over the table and its gradient, smaller ones less scratch.
inline int64_t cross_entropy_chunk_rows(int64_t width) {
  constexpr int64_t kElements = int64_t{1} << 24;
  return std::max<int64_t>(64, kElements / std::max<int64_t>(width, 1));
}

struct CrossEntropySums {
  double loss = 0;            // weight · Σ (cross-entropy with smoothing + z-loss)
  double log_likelihood = 0;  // Σ log p(target), no smoothing, no z-loss
  double z_loss = 0;          // weight · Σ z_loss · (log Z)²
  int64_t targets = 0;        // rows that count
  int64_t correct = 0;        // rows whose arg max is the target
};

/// Loss over the rows with target >= 0, hidden [N, D], table [V, D] of one dtype, targets [N] i32
/// (-1: no target), global indices. When d_hidden is defined, also the gradients of sums->loss,
/// while each chunk's logits are at hand: d_hidden [N, D] written (rows without target: 0), d_table
/// [V, D] master written or added by accum_table (undefined: not wanted). Sums over rows in fixed
/// order. logits [N, V] master is filled too when defined (tests, tools). With a part of the table,
/// sums are those of the whole vocabulary, alike on every rank; d_table and logits are the part's;
/// d_hidden is the part's share, which has to be summed over the ranks.
SW_KERNEL(cross_entropy, CrossEntropySums* sums, Tensor& d_hidden, Tensor& d_table,
          Accum accum_table, Tensor& logits, const Tensor& hidden, const Tensor& table,
          const Tensor& targets, const CrossEntropyParams& params)

}  // namespace sw::kernels
