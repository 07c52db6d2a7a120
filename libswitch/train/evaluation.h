// Negative log perplexity of a model on held-out shards.
#pragma once

#include <memory>
#include <string>

#include "libswitch/data/dataset.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/objective.h"
#include "libswitch/train/step.h"

namespace sw {

/// Rows that are evaluated together. Fixed by the lengths alone, because tokens of one batch
/// compete for the experts' capacity: the training run and sw-eval must form the same batches.
int64_t evaluation_rows(int64_t input_length, int64_t target_length);

/// Lengths and corruption that the checkpoint was trained with.
DatasetOptions trained_dataset_options(const CheckpointReader& reader);

/// The shard `name` as held-out data for the checkpoint's model; `max_tokens` as in EvalSet. Throws
/// as EvalSet, and corrupt when the shard's vocabulary is not the checkpoint's.
std::unique_ptr<EvalSet> open_eval_set(const CheckpointReader& reader, const std::string& name,
                                       const DatasetOptions& options, int64_t max_tokens = 0);

/// Evaluates every row of `set` once: evaluation capacity, no jitter, no dropout. `name` goes
/// into the result; `forward`, where given, runs the model.
Evaluation evaluate_set(const Model& model, const EvalRows& set, const std::string& name,
                        const Poll& poll = {}, const ShardForward& forward = {});

/// Tokens over capacity as a share of all tokens of all layers; 0 without sparse layers.
double dropped_share(const std::vector<RouterStatistics>& layers);

}  // namespace sw
