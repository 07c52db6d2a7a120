// Options of every tool that trains: data, training, run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "libswitch/base/options.h"
#include "libswitch/data/dataset.h"
#include "libswitch/nn/model_options.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/schedule.h"
#include "libswitch/train/trainer.h"

namespace sw {

/// Shards, and how rows are made from them. Group "data".
struct DataOptions {
  std::vector<std::string> data;       // FILE or FILE=WEIGHT; "-": stdin
  std::vector<std::string> eval_data;  // files
  int64_t input_length = 512;
  int64_t target_length = 0;  // 0: what the input length gives
  double temperature = 1;
  double noise_density = 0.15, mean_span = 3;
  int64_t eval_tokens = 0;  // of each evaluation file; 0: all
  std::filesystem::path vocab;

  DatasetOptions dataset_options(uint64_t seed) const;
};
/// As sw-pretrain has them; a tool with another use for a name, or other data beside, says so.
struct DataOptionUse {
  bool required = true;
  const char* mixture_temperature = "temperature";
  int64_t least_input_length = 2;  // 0: may be left open
};
void declare_data_options(OptionRegistry& registry, DataOptions& options,
                          const DataOptionUse& use = {});

/// How the model learns. Group "train".
struct LearningOptions {
  int64_t steps = 0;
  int64_t max_tokens = 0;
  int64_t batch = 64;  // rows
  uint64_t seed = 0;
  std::string optimizer = "adafactor";
  std::optional<std::string> schedule;
  std::optional<double> lr;
  std::optional<int64_t> warmup;
  double final_lr = 0;  // share
  double weight_decay = 0, beta1 = 0.9, beta2 = 0.999;
  double clip_norm = 0;
  int64_t canonical_ranks = 0;  // 0: the data ranks at the run's start
  int64_t accumulate = 1;
  bool shard_optimizer = false;
  std::string dtype = "auto";

  /// Fills in what depends on other options: schedule, rate, warm-up, dtype; canonical ranks from
  /// the data ranks of the mesh.
  void resolve(int64_t data_ranks = 1);
  /// These need resolve() first.
  OptimizerConfig optimizer_config() const;
  Schedule schedule_config() const;
};
void declare_learning_options(OptionRegistry& registry, LearningOptions& options,
                              int64_t least_steps = 1);

/// What belongs to this run on this machine. Group "run".
struct RunOptions {
  std::filesystem::path run;
  std::string device = "auto";
  std::string mesh;  // "data=8,expert=4,model=2"; axes left out are chosen
  std::string recompute = "none";
  int64_t eval_every = 1000, save_every = 1000, keep_last = 3, log_every = 0;
  Seconds max_time{0};
  bool async_checkpoint = false;
  bool tensorboard = false;
  std::string resume = "auto";  // auto, never, or a checkpoint
  std::optional<Seconds> hang_timeout;
  int64_t check_replicas = 1000;
  OnSpike on_spike = OnSpike::warn;
  std::optional<double> peak_gflops;
  bool allow_changes = false;
};
void declare_run_options(OptionRegistry& registry, RunOptions& options);

/// The loop's configuration; shares of peak stay to be set.
TrainerConfig trainer_config(const LearningOptions& learning, const RunOptions& run);

/// "auto" is bf16 where the processor multiplies it (AVX512-BF16 or AMX), else fp32.
DType compute_dtype(const std::string& name);
const char* compute_dtype_option(DType dtype);  // "fp32", "bf16"
bool processor_multiplies_bf16();

/// "auto", "cpu", "cuda", "cuda:1". Throws device where this build or machine has no such device.
Device compute_device(const std::string& name);

}  // namespace sw
