// Fine-tuning from its options: a checkpoint, tasks.
#pragma once

#include <filesystem>
#include <string>

#include "libswitch/train/options.h"
#include "libswitch/train/training_run.h"
#include "libswitch/train/training_tasks.h"

namespace sw {

/// Defaults as in Fedus et al. 2022, section 4.1 and table 4: dropout 0.1, in experts 0.4, a
/// constant rate of 1e-3.
struct FinetuneOptions {
  FinetuneOptions();
  std::filesystem::path from;
  bool fresh_optimizer = false;
  std::string best;  // metric; empty: no checkpoint is kept as the best
  std::filesystem::path vocab;
  ModelOptions model;
  TaskOptions task;
  LearningOptions learning;
  RunOptions run;
};
void declare_finetune_options(OptionRegistry& registry, FinetuneOptions& options);

/// Trains to the end or until stopped. Options get their resolved values on the way.
TrainOutcome finetune(FinetuneOptions& options, RunContext& context);
/// What finetune() would do, without creating anything.
TrainingPlan plan_finetuning(FinetuneOptions& options, RunContext& context);

}  // namespace sw
