// A tiny model, made-up data and a run folder for the tests of training.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/objective.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/trainer.h"

namespace sw::testing {

/// The message of the Error of `kind` that `fn` throws; a test failure when it throws none.
std::string message_of(ErrorKind kind, const std::function<void()>& fn);

/// 2 + 2 layers of width 16, four experts in every second one.
ModelConfig small_model();

/// Rows of one batch, a pure function of `step`: ids below 100, with padding when asked.
Batch made_up_batch(int64_t step, int64_t rows = 8, bool padded = false);

/// Part `part` of a batch's rows.
Batch rows_of(const Batch& batch, MeshPart part);

/// Bits of all weights, as one checksum.
std::string weights_checksum(const Model& model);
/// Weights and optimizer state.
std::string state_checksum(const Model& model, const Optimizer& optimizer);

/// Made-up batches; every hook may be replaced.
class MadeUpObjective : public Objective {
 public:
  int64_t rows() const override { return 8; }
  void fill(int64_t step, MeshPart part, Batch& batch) const override {
    if (on_fill) on_fill(step);
    batch = rows_of(made_up_batch(step, rows()), part);
  }
  DataPosition position(int64_t step) const override;
  ForwardResult forward(Context& context, const Model& model, const ModelInput& input,
                        const ForwardOptions& options) const override;
  std::vector<Evaluation> evaluate(const Model& model, const Poll& poll) const override;

  std::string manifest = "made up";
  std::function<void(int64_t step)> on_fill;
  std::function<void(int64_t step, ForwardResult& result)> on_forward;
  std::function<void(const Poll& poll)> on_evaluate;
  bool evaluates = true;
};

/// A token shard of `documents` made-up documents over 128 ids.
void write_shard(const std::filesystem::path& file, int documents, uint64_t seed = 1);

/// A folder of its own for each test, removed afterwards; one thread.
class TrainingTest : public ::testing::Test {
 protected:
  TrainingTest();
  ~TrainingTest() override;
  std::filesystem::path path(const std::string& name) const { return folder_ / name; }

 private:
  std::filesystem::path folder_;
};

/// One process' worth of a training in a run folder.
class TrainingCase {
 public:
  explicit TrainingCase(std::filesystem::path folder);

  TrainerConfig config;
  MadeUpObjective objective;
  TrainerHooks hooks;
  std::vector<std::string> committed;  // digests, in order

  /// Starts or goes on with the run, as sw-pretrain does.
  TrainOutcome run();
  /// "loss gradient-norm" of every training row in metrics.jsonl, checked to be steps 1, 2, ...
  std::vector<std::string> losses() const;
  /// Steps of the evaluation rows.
  std::vector<int64_t> evaluations() const;
  std::string newest_digest() const;
  Telemetry newest_telemetry() const;

 private:
  std::filesystem::path folder_;
};

}  // namespace sw::testing
