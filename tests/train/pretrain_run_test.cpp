#include "libswitch/train/pretrain_run.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "libswitch/base/file.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/evaluation.h"
#include "tests/support/tool_case.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::with;

class PretrainRun : public testing::TrainingTest {
 protected:
  PretrainRun() {
    testing::write_shard(path("train.swt"), 60);
    testing::write_shard(path("held.swt"), 8, 2);
    std::ofstream(path("small.toml")) << "[model]\nd_model = 16\nd_kv = 8\nheads = 2\nd_ff = 32\n"
                                         "encoder_layers = 2\ndecoder_layers = 2\nexperts = 4\n";
  }
  std::vector<std::string> arguments(const std::string& run) const {
    return {"--preset",       path("small.toml"),
            "--data",         path("train.swt"),
            "--run",          path(run),
            "--steps",        "6",
            "--batch",        "4",
            "--save-every",   "2",
            "--input-length", "24",
            "--dtype",        "fp32",
            "--warmup",       "10"};
  }
  // What sw-pretrain does with these arguments.
  TrainOutcome pretrain_with(std::vector<std::string> args, PretrainOptions* resolved = nullptr) {
    PretrainOptions options;
    const TrainOutcome outcome =
        testing::call_tool(&declare_pretrain_options, &pretrain, args, options);
    if (resolved != nullptr) *resolved = options;
    return outcome;
  }
  std::string digest(const std::string& run) const {
    return open_checkpoint(path(run).string()).digest();
  }
};

TEST_F(PretrainRun, MakesTheRunFolderOfTheContract) {
  EXPECT_EQ(pretrain_with(arguments("a")), TrainOutcome::finished);
  for (const char* name :
       {"config.toml", "metrics.jsonl", "log.txt", "latest", "checkpoints/step-000000006.h5"}) {
    EXPECT_TRUE(std::filesystem::exists(path("a") / name)) << name;
  }
  const CheckpointReader reader = open_checkpoint(path("a").string());
  EXPECT_EQ(reader.meta().config_toml, read_file(path("a") / "config.toml"));
  EXPECT_EQ(reader.meta().train.data.ordinal, 24u);
  EXPECT_EQ(reader.meta().params_total, count_parameters(load_model(reader)->config()).total);
}

TEST_F(PretrainRun, TheSameCommandLineGoesOnToTheSameBits) {
  pretrain_with(arguments("a"));
  auto shorter = arguments("b");
  shorter[7] = "3";
  pretrain_with(shorter);
  pretrain_with(arguments("b"));
  EXPECT_EQ(digest("a"), digest("b"));
}

TEST_F(PretrainRun, ItsConfigRepeatsIt) {
  pretrain_with(with(arguments("a"), {"--seed", "9", "--dropout", "0.1", "--lr", "0.3"}));
  PretrainOptions options;
  OptionRegistry registry;
  declare_pretrain_options(registry, options);
  registry.set("run", path("b").string(), Source::flag, "--run");
  registry.apply_toml_file((path("a") / "config.toml").string(), Source::file);
  RunContext context{process_world(), registry, "sw-pretrain", {}, {}, false, {}};
  context.log.level = log::Level::error;
  pretrain(options, context);
  EXPECT_EQ(digest("a"), digest("b"));
}

TEST_F(PretrainRun, OptionsThatBelongToTheMachineOrTheLengthMayChange) {
  pretrain_with(arguments("a"));
  auto longer = arguments("a");
  longer[7] = "8";
  EXPECT_EQ(pretrain_with(with(longer, {"--save-every", "5", "--recompute", "full", "--keep-last",
                                        "4", "--eval-data", path("held.swt")})),
            TrainOutcome::finished);
  auto whole = arguments("b");
  whole[7] = "8";
  pretrain_with(whole);
  EXPECT_EQ(digest("a"), digest("b"));
}

TEST_F(PretrainRun, OptionsThatMakeItAnotherRunAreRefused) {
  pretrain_with(arguments("a"));
  auto longer = arguments("a");
  longer[7] = "8";
  const auto refused = [&](std::vector<std::string> more) {
    return message_of(ErrorKind::usage, [&] { pretrain_with(with(longer, more)); });
  };
  EXPECT_THAT(refused({"--batch", "8"}),
              AllOf(HasSubstr("batch is 8"), HasSubstr("trained with 4"), HasSubstr("--run")));
  EXPECT_THAT(refused({"--experts", "2"}), HasSubstr("experts is 2"));
  EXPECT_THAT(refused({"--seed", "1"}), HasSubstr("seed is 1"));
  EXPECT_THAT(refused({"--dtype", "bf16"}), HasSubstr("dtype is bf16"));
  EXPECT_THAT(refused({"--canonical-ranks", "2"}), HasSubstr("canonical-ranks is 2"));
  EXPECT_THAT(refused({"--lr", "0.5"}), HasSubstr("--allow-changes"));
  EXPECT_THAT(refused({"--resume", "never"}), HasSubstr("holds checkpoints already"));
  EXPECT_EQ(open_checkpoint(path("a").string()).meta().step, 6);
}

TEST_F(PretrainRun, RatesMayChangeWhenAllowed) {
  pretrain_with(arguments("a"));
  auto longer = arguments("a");
  longer[7] = "8";
  PretrainOptions resolved;
  pretrain_with(with(longer, {"--lr", "0.5", "--allow-changes"}), &resolved);
  EXPECT_EQ(resolved.learning.lr, 0.5);
  EXPECT_EQ(open_checkpoint(path("a").string()).meta().step, 8);
}

TEST_F(PretrainRun, ValuesThatWereNotGivenComeFromTheCheckpoint) {
  pretrain_with(with(arguments("a"), {"--seed", "9", "--dropout", "0.1", "--lr", "0.3"}));
  auto longer = arguments("a");
  longer[7] = "8";
  PretrainOptions resolved;
  pretrain_with(longer, &resolved);
  EXPECT_EQ(resolved.learning.seed, 9u);
  EXPECT_EQ(resolved.model.config.dropout, 0.1);
  EXPECT_EQ(resolved.learning.lr, 0.3);
}

TEST_F(PretrainRun, BranchesOffFromAnotherRunsCheckpoint) {
  pretrain_with(arguments("a"));
  const std::string source = path("a") / "checkpoints/step-000000004.h5";
  EXPECT_EQ(pretrain_with(with(arguments("b"), {"--resume", source})), TrainOutcome::finished);
  EXPECT_EQ(digest("a"), digest("b"));
  // Once more: it goes on from its own.
  EXPECT_EQ(pretrain_with(with(arguments("b"), {"--resume", source})), TrainOutcome::finished);
  EXPECT_THAT(message_of(ErrorKind::usage,
                         [&] {
                           pretrain_with(with(arguments("a"), {"--resume", source}));
                         }),
              HasSubstr("branch off"));
}

TEST_F(PretrainRun, OtherDataAreRefusedOnResume) {
  pretrain_with(arguments("a"));
  testing::write_shard(path("other.swt"), 60, 5);
  auto other = arguments("a");
  other[3] = path("other.swt");
  other[7] = "8";
  EXPECT_THAT(message_of(ErrorKind::usage, [&] { pretrain_with(other); }), HasSubstr("other data"));
  std::filesystem::rename(path("train.swt"), path("moved.swt"));
  other[3] = path("moved.swt");
  EXPECT_EQ(pretrain_with(other), TrainOutcome::finished);
}

TEST_F(PretrainRun, StdinIsSpooledAndGoneOnWith) {
  pretrain_with(arguments("a"));
  auto piped = arguments("b");
  piped[3] = "-";
  piped[7] = "3";
  const int before = dup(STDIN_FILENO);
  const int shard = open(path("train.swt").c_str(), O_RDONLY | O_CLOEXEC);
  dup2(shard, STDIN_FILENO);
  pretrain_with(piped);
  dup2(before, STDIN_FILENO);
  close(before);
  close(shard);
  piped[7] = "6";
  pretrain_with(piped);
  EXPECT_EQ(digest("a"), digest("b"));
}

TEST_F(PretrainRun, TheDenseTwinSeesTheSameBatches) {
  pretrain_with(arguments("a"));
  pretrain_with(with(arguments("b"), {"--experts", "0"}));
  EXPECT_EQ(open_checkpoint(path("a").string()).meta().train.data,
            open_checkpoint(path("b").string()).meta().train.data);
  EXPECT_NE(digest("a"), digest("b"));
}

TEST_F(PretrainRun, ItsEvaluationIsThatOfTheCheckpoint) {
  pretrain_with(with(arguments("a"), {"--eval-data", path("held.swt")}));
  const CheckpointReader reader = open_checkpoint(path("a").string());
  DatasetOptions options;
  options.input_length = 24;
  const EvalSet set(path("held.swt"), options);
  const Evaluation evaluation = evaluate_set(*load_model(reader), set, "held");
  const auto kept = nlohmann::json::parse(reader.meta().metrics_json);
  EXPECT_EQ(kept["step"], 6);
  EXPECT_EQ(kept["results"][0]["neg_log_perplexity"], evaluation.neg_log_perplexity);
  EXPECT_EQ(kept["results"][0]["tokens"], evaluation.tokens);
}

TEST_F(PretrainRun, ThePlanCountsTheCheckpointToAFewPercent) {
  PretrainOptions options;
  const auto args = with(arguments("a"), {"--d-model", "64", "--d-ff", "256"});
  const TrainingPlan plan =
      testing::call_tool(&declare_pretrain_options, &plan_pretraining, args, options);
  EXPECT_FALSE(std::filesystem::exists(path("a")));
  pretrain_with(args);
  const auto bytes = std::filesystem::file_size(path("a") / "checkpoints/step-000000006.h5");
  EXPECT_NEAR(static_cast<double>(plan.estimate.checkpoint_bytes) / static_cast<double>(bytes), 1,
              0.25);
}

TEST_F(PretrainRun, ThePlanGoesOnFromWhereTheRunWould) {
  pretrain_with(with(arguments("a"), {"--steps", "3"}));
  const auto plan = [&](const std::string& run, const std::vector<std::string>& more) {
    PretrainOptions options;
    return testing::call_tool(&declare_pretrain_options, &plan_pretraining,
                              with(arguments(run), more), options);
  };
  EXPECT_EQ(plan("a", {}).resume_step, 3);
  EXPECT_EQ(plan("b", {}).resume_step, -1);
  EXPECT_EQ(plan("b", {"--resume", path("a")}).resume_step, 3);
  EXPECT_THAT(message_of(ErrorKind::usage,
                         [&] {
                           plan("a", {"--resume", "never"});
                         }),
              HasSubstr("holds checkpoints already"));
  EXPECT_THAT(message_of(ErrorKind::missing,
                         [&] {
                           plan("b", {"--resume", path("absent")});
                         }),
              HasSubstr("there is no such checkpoint"));
  EXPECT_FALSE(std::filesystem::exists(path("b")));
}

TEST_F(PretrainRun, CudaIsRefusedByABuildWithoutIt) {
  EXPECT_THAT(message_of(ErrorKind::device,
                         [&] {
                           pretrain_with(with(arguments("a"), {"--device", "cuda"}));
                         }),
              HasSubstr("no CUDA backend"));
}

TEST_F(PretrainRun, AVocabularyLargerThanTheTableIsRefused) {
  EXPECT_THAT(message_of(ErrorKind::usage,
                         [&] {
                           pretrain_with(with(arguments("a"), {"--vocab-size", "100"}));
                         }),
              HasSubstr("128 ids"));
}

}  // namespace
}  // namespace sw
