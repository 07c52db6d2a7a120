// What a training loop minimises: where its batches come from, the loss of a shard, evaluation.
//
// Pre-training, fine-tuning and distillation are one loop (train/trainer.h) with three objectives.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "libswitch/data/dataset.h"
#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/moe/statistics.h"
#include "libswitch/nn/batch.h"
#include "libswitch/nn/model.h"

namespace sw {

/// Called now and then by long work; throws to end it early.
using Poll = std::function<void()>;

/// One data set's evaluation.
struct Evaluation {
  std::string data;               // as the user named it
  double neg_log_perplexity = 0;  // mean log-likelihood of a real target, nats
  int64_t tokens = 0;             // real targets
  int64_t sequences = 0;
  double dropped_share = 0;  // tokens over capacity, over all sparse layers
  std::vector<std::pair<std::string, double>> metrics;  // of a task, in percent
  std::vector<RouterStatistics> layers;
};

class Objective {
 public:
  virtual ~Objective() = default;

  /// Rows of every step.
  virtual int64_t rows() const = 0;
  /// Part `part` of the rows of the step numbered `step`, whatever the number of parts: a pure
  /// function of step and row. Called from a thread of its own, ahead of the steps.
  virtual void fill(int64_t step, MeshPart part, Batch& batch) const = 0;
  /// Where the batch of `step` begins in the data.
  virtual DataPosition position(int64_t step) const = 0;

  /// Losses of one shard (train/step.h); the model's own by default.
  virtual ForwardResult forward(Context& context, const Model& model, const ModelInput& input,
                                const ForwardOptions& options) const {
    return model.forward(context, input, options);
  }

  /// Evaluates on everything that was given for it; empty when nothing was. Every rank of the
  /// model's mesh gets all results; `poll` is called equally often by all.
  virtual std::vector<Evaluation> evaluate(const Model& model, const Poll& poll) const = 0;
};

/// A batch as the model reads it; aliases `batch`.
TokenRows token_rows(const Batch& batch);

}  // namespace sw
