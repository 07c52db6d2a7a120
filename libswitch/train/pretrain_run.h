// A pre-training run from its options: token shards, span corruption, a model from nothing.
#pragma once

#include <string>

#include "libswitch/train/options.h"
#include "libswitch/train/training_run.h"

namespace sw {

struct PretrainOptions {
  ModelOptions model;
  DataOptions data;
  LearningOptions learning;
  RunOptions run;
};
void declare_pretrain_options(OptionRegistry& registry, PretrainOptions& options);

/// Trains to the end or until stopped. Options get their resolved values on the way.
TrainOutcome pretrain(PretrainOptions& options, RunContext& context);

/// What pretrain() would do, without creating anything.
TrainingPlan plan_pretraining(PretrainOptions& options, RunContext& context);

}  // namespace sw
