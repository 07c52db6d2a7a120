#include "tests/support/training_case.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "libswitch/base/file.h"
#include "libswitch/base/hash.h"
#include "libswitch/base/log.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/rng.h"
#include "libswitch/data/shard_writer.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/evaluation.h"

namespace sw::testing {
namespace {

constexpr int64_t kInputs = 12, kTargets = 6;

void add_bits(Hash128Stream& stream, const Tensor& tensor) {
  stream.update(tensor.raw(), static_cast<size_t>(tensor.bytes()));
}

}  // namespace

std::string message_of(ErrorKind kind, const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an error";
  return "";
}

ModelConfig small_model() {
  ModelConfig config;
  config.vocab_size = 128;
  config.d_model = 16;
  config.d_kv = 8;
  config.heads = 2;
  config.d_ff = 32;
  config.experts = 4;
  config.dropout = 0.1;
  return config;
}

Batch made_up_batch(int64_t step, int64_t rows, bool padded) {
  Batch batch;
  batch.rows = rows, batch.input_length = kInputs, batch.target_length = kTargets;
  RngStream rng(rng_key(7, RngPurpose::test, static_cast<uint64_t>(step)));
  const auto fill = [&](std::vector<int32_t>& ids, int64_t length) {
    for (int64_t row = 0; row < rows; ++row) {
      const auto spare =
          padded ? static_cast<int64_t>(rng.below(static_cast<uint64_t>(length))) : 0;
      for (int64_t i = 0; i < length; ++i) {
        ids.push_back(i < length - spare ? 2 + static_cast<int32_t>(rng.below(98)) : 0);
      }
    }
  };
  fill(batch.inputs, kInputs);
  fill(batch.targets, kTargets);
  return batch;
}

Batch rows_of(const Batch& batch, MeshPart part) {
  Batch out = batch;
  out.rows = part.count(batch.rows);
  const auto cut = [&](std::vector<int32_t>& ids, int64_t length) {
    if (ids.empty()) return;
    const auto begin = ids.begin() + part.begin(batch.rows) * length;
    ids = std::vector<int32_t>(begin, begin + out.rows * length);
  };
  cut(out.inputs, batch.input_length);
  cut(out.targets, batch.target_length);
  cut(out.input_segments, batch.input_length);
  cut(out.target_segments, batch.target_length);
  return out;
}

std::string weights_checksum(const Model& model) {
  Hash128Stream stream;
  for (const auto& parameter : model.parameters()) add_bits(stream, parameter->master());
  return stream.digest().hex();
}

std::string state_checksum(const Model& model, const Optimizer& optimizer) {
  Hash128Stream stream;
  for (const auto& parameter : model.parameters()) add_bits(stream, parameter->master());
  for (const OptimizerState& state : optimizer.states()) add_bits(stream, state.tensor);
  return stream.digest().hex();
}

DataPosition MadeUpObjective::position(int64_t step) const {
  DataPosition position;
  position.manifest_sha256 = manifest;
  position.ordinal = static_cast<uint64_t>(step * rows());
  return position;
}

ForwardResult MadeUpObjective::forward(Context& context, const Model& model,
                                       const ModelInput& input,
                                       const ForwardOptions& options) const {
  ForwardResult result = model.forward(context, input, options);
  if (on_forward) on_forward(context.step, result);
  return result;
}

std::vector<Evaluation> MadeUpObjective::evaluate(const Model& model, const Poll& poll) const {
  if (!evaluates) return {};
  if (on_evaluate) on_evaluate(poll);
  const Batch batch = made_up_batch(1 << 20);
  const StepResult result = evaluate_batch(model, token_rows(batch));
  Evaluation evaluation;
  evaluation.data = "made up";
  evaluation.neg_log_perplexity = result.neg_log_perplexity();
  evaluation.tokens = result.targets;
  evaluation.sequences = batch.rows;
  return {evaluation};
}

void write_shard(const std::filesystem::path& file, int documents, uint64_t seed) {
  ShardHeader header;
  header.vocab_size = 128;
  header.vocab_sha256.fill(7);
  header.block_tokens_max = 512;
  std::ofstream out(file, std::ios::binary);
  ShardWriter writer(
      [&](const void* data, size_t bytes) {
        out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
      },
      header);
  RngStream rng(rng_key(seed, RngPurpose::test));
  for (int d = 0; d < documents; ++d) {
    // Words of three ids each, so that there is something to learn.
    std::vector<int32_t> ids;
    const auto words = 20 + rng.below(40);
    for (uint64_t w = 0; w < words; ++w) {
      const auto word = static_cast<int32_t>(rng.below(8));
      for (int32_t i = 0; i < 3; ++i) ids.push_back(3 + 3 * word + i);
    }
    writer.append(ids);
  }
  writer.finish();
}

TrainingTest::TrainingTest() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  folder_ =
      std::filesystem::temp_directory_path() / (std::string("sw-") + info->test_suite_name() + "-" +
                                                info->name() + "-" + std::to_string(::getpid()));
  std::filesystem::remove_all(folder_);
  std::filesystem::create_directories(folder_);
  set_threads(1);
  log::Config quiet;
  quiet.level = log::Level::error;
  log::configure(quiet);
}

TrainingTest::~TrainingTest() {
  log::configure({});
  set_threads(0);
  std::filesystem::remove_all(folder_);
}

TrainingCase::TrainingCase(std::filesystem::path folder) : folder_(std::move(folder)) {
  config.steps = 12;
  config.save_every = 4;
  config.eval_every = 3;
  config.save_retry_seconds = 0;
  config.schedule.warmup = 5;
  config.schedule.rate = 0.1;
  config.step.seed = 3;
}

TrainOutcome TrainingCase::run() {
  const RunDirectory directory(folder_);
  OutsideRequests requests(folder_);
  Model model(small_model(), DType::f32);
  const auto optimizer = make_optimizer({}, model);
  CheckpointMeta meta;
  meta.preset = "small";
  meta.tool_version = "test";
  meta.optimizer = "adafactor";
  meta.config_toml = "[model]\n";
  TrainerHooks with_digests = hooks;
  with_digests.committed = [&](const CommittedCheckpoint& done) {
    committed.push_back(done.digest);
    if (hooks.committed) hooks.committed(done);
  };
  Trainer trainer(config, model, *optimizer, objective, directory, meta, with_digests);
  if (const auto newest = directory.newest_checkpoint()) {
    trainer.resume(CheckpointReader(*newest));
  } else {
    model.initialize(config.step.seed);
  }
  return trainer.run(requests);
}

std::vector<std::string> TrainingCase::losses() const {
  std::vector<std::string> losses;
  std::ifstream file(folder_ / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row["kind"] != "train") continue;
    losses.push_back(row["loss"].dump() + " " + row["grad_norm"].dump());
    EXPECT_EQ(row["step"], losses.size()) << "steps lost or repeated in metrics.jsonl";
  }
  return losses;
}

std::vector<int64_t> TrainingCase::evaluations() const {
  std::vector<int64_t> steps;
  std::ifstream file(folder_ / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row["kind"] == "eval") steps.push_back(row["step"]);
  }
  return steps;
}

std::string TrainingCase::newest_digest() const {
  return open_checkpoint(folder_.string()).digest();
}

Telemetry TrainingCase::newest_telemetry() const {
  Telemetry telemetry = open_checkpoint(folder_.string()).read_telemetry();
  telemetry.train.tok_s.clear();  // of this machine, at that time
  return telemetry;
}

}  // namespace sw::testing
