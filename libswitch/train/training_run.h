// A training run from its options: folder, data, model, resuming, loop. What a tool trains on is a
// TrainingJob; everything else is the same for all of them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/base/log.h"
#include "libswitch/train/estimate.h"
#include "libswitch/train/options.h"

namespace sw {

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

/// Where a run computes.
struct RunMachine {
  DType compute = DType::f32;
  Device device;
  MeshShape mesh;
};
/// Settles the options that depend on the machine: device, mesh of `ranks` ranks for a model of so
/// many experts, precision, schedule. Throws usage, device.
RunMachine settle_machine(LearningOptions& learning, const RunOptions& run, int64_t ranks,
                          int64_t experts);

/// What a run will do, once every option is settled.
struct PreparedRun {
  RunMachine machine;
  ModelConfig model;
  std::string preset;                      // of the model, for the checkpoints; may be empty
  std::string beginning = "from nothing";  // where the weights of a new run come from
  int64_t input_length = 0, target_length = 0;
  uint64_t train_examples = 0, train_tokens = 0;     // of one epoch
  std::map<std::string, AttributeValue> attributes;  // of the checkpoints, beside the run's own
  std::vector<ModelConfig> frozen;                   // models that run along without gradients
  int64_t data_bytes = 0, evaluation_bytes = 0;      // as in TrainingShape
};

/// What a tool trains. The run calls the functions in this order, on every rank alike.
class TrainingJob {
 public:
  virtual ~TrainingJob() = default;
  virtual LearningOptions& learning() = 0;
  virtual RunOptions& run() = 0;
  /// Declares the tool's options in another registry, bound to fields that live as long as what it
  /// returns.
  virtual std::shared_ptr<void> declare(OptionRegistry& registry) const = 0;
  /// Before the options of the run's own checkpoint are adopted: what a preset says, but the run
  /// has decided otherwise at its start, is as in the run.
  virtual void yield_to_run(const CheckpointReader&) {}
  /// Takes streams into the run folder; rank 0 alone.
  virtual void take_in(const std::filesystem::path&) {}
  /// Throws usage where a look without a run cannot know enough.
  virtual void check_plannable() const {}
  /// Opens the data and settles every option that depends on something else. `before` is the run's
  /// own checkpoint, whose options are adopted already, or null at its start.
  virtual PreparedRun prepare(int64_t ranks, const CheckpointReader* before) = 0;
  /// Bytes of the vocabulary file for the checkpoints; empty: none.
  virtual std::string tokenizer() = 0;
  virtual std::unique_ptr<Objective> make_objective(const Mesh& mesh) = 0;
  /// Changes to the loop's configuration that the objective wants.
  virtual void configure(TrainerConfig&) const {}
  /// The weights that a run begins with.
  virtual void initialize(Model& model, Optimizer& optimizer);
  /// When all steps are done and the last checkpoint is committed; on every rank alike.
  virtual void finished(Trainer&, const Model&) {}
};

/// Trains to the end or until stopped. Options get their resolved values on the way.
TrainOutcome run_training(TrainingJob& job, RunContext& context);

/// What run_training() would do, without creating anything.
struct TrainingPlan {
  TrainingEstimate estimate;
  uint64_t train_examples = 0, train_tokens = 0;  // of one epoch
  double epochs = 0;
  int64_t resume_step = -1;  // -1: a new run
  std::string beginning;     // where its weights come from
  double peak_flops = 0;
  int64_t free_disk_bytes = -1;       // where the run folder is or will be; -1: unknown
  int64_t machine_memory_bytes = -1;  // of this machine, swap included; -1: unknown
};
/// Checks everything that can be checked; throws as run_training() would.
TrainingPlan plan_training(TrainingJob& job, RunContext& context);

}  // namespace sw
