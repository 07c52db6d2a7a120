// One training step: forward and backward over the shards of a batch, summed in one tree.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "libswitch/moe/statistics.h"
#include "libswitch/nn/batch.h"
#include "libswitch/nn/model.h"
#include "libswitch/train/optimizer.h"

namespace sw {

/// Runs the model on one shard and returns its losses; with a tape in the context, `loss` is the
/// root of the backward pass. The default is model.forward().
using ShardForward =
    std::function<ForwardResult(Context&, const Model&, const ModelInput&, const ForwardOptions&)>;

struct StepConfig {
  /// Equal shards of the batch; sums over them go along one binary tree, so that any number of
  /// ranks that share them gives the same bits. A power of two.
  int64_t canonical_ranks = 1;
  /// Micro-batches within a shard, summed one after the other.
  int64_t accumulate = 1;
  Recompute recompute = Recompute::none;
  uint64_t seed = 0;
  double clip_norm = 0;  // gradients are scaled down to this global norm; 0: never

  /// Throws usage unless `rows` of a step can be cut into equal micro-batches and data ranks have
  /// equal shares of them.
  void check_rows(int64_t rows, int64_t data_ranks = 1) const;
};

struct StepResult {
  double loss = 0;                  // what was minimised, of the whole batch
  double cross_entropy = 0;         // share of `loss` without output z-loss and smoothing
  double aux_loss = 0, z_loss = 0;  // router losses, weighted as in `loss`
  double soft_cross_entropy = 0, teacher_cross_entropy = 0;  // as in ForwardResult
  double log_likelihood = 0;                                 // Σ over real targets, nats
  int64_t targets = 0;                                       // real targets
  int64_t correct = 0;                                       // of these, predicted by the arg max
  int64_t tokens = 0;                                        // real inputs and targets
  double grad_norm = 0;                                      // before clipping
  double gradient_scale = 1;                                 // by clipping
  bool finite = true;                                        // whether loss and gradient were
  std::string fault;  // why nothing may be updated; empty: it may
  std::vector<RouterStatistics> layers;

  /// Mean log-likelihood of a real target.
  double neg_log_perplexity() const {
    return targets > 0 ? log_likelihood / static_cast<double>(targets) : 0.0;
  }
};

/// Gradients of the whole batch in the model's slots, and what was observed, on every rank of the
/// model's mesh. `rows` are this data rank's equal part of the batch, in order. `step` keys dropout
/// and jitter. `poll`, when given, is called between micro-batches, equally often by all ranks.
StepResult compute_gradients(Model& model, const TokenRows& rows, int64_t step,
                             const StepConfig& config, const ShardForward& forward = {},
                             const std::function<void()>& poll = {});

/// compute_gradients, then one update at `learning_rate` unless the result is not finite. `judge`,
/// when given, sees a finite result first and keeps it from the weights by giving it a fault; it
/// must come to the same on all ranks, which all have the same result.
StepResult training_step(Model& model, Optimizer& optimizer, const TokenRows& rows, int64_t step,
                         double learning_rate, const StepConfig& config,
                         const ShardForward& forward = {}, const std::function<void()>& poll = {},
                         const std::function<void(StepResult&)>& judge = {});

/// The same sums over this rank's batch without gradients, dropout, jitter and training capacity.
/// Every rank evaluates a batch of its own, all of them at the same time.
StepResult evaluate_batch(const Model& model, const TokenRows& batch, int64_t shards = 1,
                          const ShardForward& forward = {});

/// Rows [begin, end) of a batch.
TokenRows slice_rows(const TokenRows& batch, int64_t begin, int64_t end);

}  // namespace sw
