#include "libswitch/train/pretrain_run.h"

#include <fmt/ranges.h>

#include "libswitch/base/config.h"
#include "libswitch/base/error.h"
#include "libswitch/train/pretraining.h"
#include "libswitch/train/training_shards.h"

namespace sw {
namespace {

class PretrainingJob final : public TrainingJob {
 public:
  explicit PretrainingJob(PretrainOptions& options) : options_(options) {}

  LearningOptions& learning() override { return options_.learning; }
  RunOptions& run() override { return options_.run; }
  std::shared_ptr<void> declare(OptionRegistry& registry) const override {
    auto options = std::make_shared<PretrainOptions>();
    declare_pretrain_options(registry, *options);
    return options;
  }
  void take_in(const std::filesystem::path& folder) override { spool_stdin(options_.data, folder); }
  void check_plannable() const override { check_stdin_spooled(options_.data, options_.run.run); }

  PreparedRun prepare(int64_t ranks, const CheckpointReader* before) override {
    PreparedRun out;
    SW_CHECK(!options_.model.preset.empty() || options_.model.config.vocab_size > 0, usage,
             "--preset is missing; give one of {}, or a .toml file",
             fmt::join(preset_names(), ", "));
    out.machine =
        settle_machine(options_.learning, options_.run, ranks, options_.model.resolve().experts);
    shards_ = open_training_shards(options_.data, options_.learning.seed, options_.run.run,
                                   before != nullptr ? vocabulary_of(*before) : "",
                                   "the data of the run so far");
    const DataVocabulary& vocabulary = shards_.dataset->vocabulary();
    int64_t& vocab_size = options_.model.config.vocab_size;
    if (vocab_size == 0) vocab_size = vocabulary.padded_vocab_size;
    SW_CHECK(vocab_size >= vocabulary.vocab_size, usage,
             "--vocab-size is {}, but the data have {} ids; give at least that, or 0", vocab_size,
             vocabulary.vocab_size);
    out.model = options_.model.resolve();
    out.preset = options_.model.preset;
    out.input_length = shards_.dataset->input_length();
    out.target_length = shards_.dataset->target_length();
    out.train_examples = shards_.windows();
    out.train_tokens = shards_.dataset->tokens();
    out.attributes[kVocabularyAttribute] = shards_.vocabulary;
    return out;
  }

  std::string tokenizer() override {
    return shard_tokenizer(shards_.first_shard, options_.data.vocab);
  }
  std::unique_ptr<Objective> make_objective(const Mesh&) override {
    return std::make_unique<PretrainingObjective>(std::move(shards_.dataset),
                                                  options_.learning.seed, options_.learning.batch,
                                                  std::move(shards_.eval_sets));
  }

 private:
  PretrainOptions& options_;
  TrainingShards shards_;
};

}  // namespace

void declare_pretrain_options(OptionRegistry& registry, PretrainOptions& options) {
  declare_model_options(registry, options.model);
  declare_data_options(registry, options.data);
  declare_learning_options(registry, options.learning);
  declare_run_options(registry, options.run);
}

TrainOutcome pretrain(PretrainOptions& options, RunContext& context) {
  PretrainingJob job(options);
  return run_training(job, context);
}

TrainingPlan plan_pretraining(PretrainOptions& options, RunContext& context) {
  PretrainingJob job(options);
  return plan_training(job, context);
}

}  // namespace sw
