// A pre-training run from its options: folder, data, model, resuming, loop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libswitch/base/log.h"
#include "libswitch/train/estimate.h"
#include "libswitch/train/options.h"

namespace sw {

struct PretrainOptions {
  ModelOptions model;
  DataOptions data;
  LearningOptions learning;
  RunOptions run;
};
void declare_pretrain_options(OptionRegistry& registry, PretrainOptions& options);

/// What a tool brings along.
struct RunContext {
  World& world;              // whose ranks all call the functions below
  OptionRegistry& registry;  // the options are bound to it
  std::string tool;          // "sw-pretrain"
  std::vector<std::string> argv;
  log::Config log;
  bool progress_bar = false;
  std::function<void(const CommittedCheckpoint&)> committed;
};

/// Trains to the end or until stopped. Options get their resolved values on the way.
TrainOutcome pretrain(PretrainOptions& options, RunContext& context);

/// What pretrain() would do, without creating anything.
struct PretrainPlan {
  TrainingEstimate estimate;
  uint64_t train_windows = 0, train_tokens = 0;  // of one epoch
  double epochs = 0;
  int64_t resume_step = -1;  // -1: from nothing
  double peak_flops = 0;
  int64_t free_disk_bytes = -1;       // where the run folder is or will be; -1: unknown
  int64_t machine_memory_bytes = -1;  // of this machine, swap included; -1: unknown
};
/// Checks everything that can be checked; throws as pretrain() would.
PretrainPlan plan_pretraining(PretrainOptions& options, RunContext& context);

}  // namespace sw
