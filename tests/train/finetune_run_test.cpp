#include "libswitch/train/finetune_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "libswitch/base/file.h"
#include "libswitch/data/shard_writer.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/pretrain_run.h"
#include "tests/data/data_test_support.h"
#include "tests/support/tool_case.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::with;

class FinetuneRun : public testing::TrainingTest {
 protected:
  FinetuneRun() {
    write_file_atomically(path("v.model"), testing::small_tokenizer().model_bytes());
    write_text_shard();
    write_pairs("pairs.tsv", 60);
    write_pairs("held.tsv", 12);
    std::ofstream(path("small.toml")) << "[model]\nd_model = 16\nd_kv = 8\nheads = 2\nd_ff = 32\n"
                                         "encoder_layers = 2\ndecoder_layers = 2\nexperts = 4\n";
    PretrainOptions options;
    testing::call_tool(&declare_pretrain_options, &pretrain,
                       with({"--preset", path("small.toml"), "--data", path("text.swt"), "--vocab",
                             path("v.model"), "--warmup", "10", "--jitter", "0.02",
                             "--input-length", "24", "--steps", "5", "--run", path("from")},
                            common()),
                       options);
  }
  static std::vector<std::string> common() {
    return {"--batch", "4", "--dtype", "fp32", "--save-every", "2", "--peak-gflops", "0"};
  }
  void write_text_shard() const {
    const Tokenizer& tokenizer = testing::small_tokenizer();
    ShardHeader header;
    header.vocab_size = static_cast<uint32_t>(tokenizer.vocab_size());
    header.vocab_sha256 = tokenizer.sha256();
    header.block_tokens_max = 512;
    std::ofstream out(path("text.swt"), std::ios::binary);
    ShardWriter writer(
        [&](const void* data, size_t bytes) {
          out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
        },
        header);
    for (uint64_t d = 0; d < 20; ++d) {
      writer.append(tokenizer.encode(testing::nonsense_text(20, d + 5)));
    }
    writer.finish();
  }
  void write_pairs(const std::string& name, int count) const {
    std::ofstream out(path(name));
    for (int i = 0; i < count; ++i) {
      out << (i % 2 == 0 ? "ba ke" : "li mo") << " chadro " << (i % 7) << "\t"
          << (i % 2 == 0 ? "ra" : "se") << "\n";
    }
  }
  std::vector<std::string> arguments(const std::string& run) const {
    return with({"--from", path("from"), "--task", path("pairs.tsv"), "--input-length", "24",
                 "--target-length", "8", "--steps", "6", "--run", path(run)},
                common());
  }
  TrainOutcome tune(const std::string& run, const std::vector<std::string>& more,
                    FinetuneOptions* resolved = nullptr) const {
    FinetuneOptions options;
    const TrainOutcome outcome = testing::call_tool(&declare_finetune_options, &finetune,
                                                    with(arguments(run), more), options);
    if (resolved != nullptr) *resolved = options;
    return outcome;
  }
  CheckpointReader newest(const std::string& run) const {
    return open_checkpoint(path(run).string());
  }
  std::vector<nlohmann::json> metrics(const std::string& run, const std::string& kind) const {
    std::vector<nlohmann::json> rows;
    std::ifstream in(path(run) / "metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
      auto json = nlohmann::json::parse(line);
      if (json["kind"] == kind) rows.push_back(std::move(json));
    }
    return rows;
  }
};

TEST_F(FinetuneRun, CountsOnFromTheCheckpointsStep) {
  EXPECT_EQ(tune("a", {}), TrainOutcome::finished);
  const CheckpointReader reader = newest("a");
  EXPECT_EQ(reader.meta().step, 11);
  EXPECT_EQ(reader.meta().train.data.ordinal, 24u);
  EXPECT_EQ(metrics("a", "train").front()["step"], 6);
  EXPECT_FALSE(reader.meta().tokenizer.empty());
  for (const int64_t step : {7, 9, 11}) {
    EXPECT_TRUE(std::filesystem::exists(path("a") / fmt::format("checkpoints/step-{:09}.h5", step)))
        << step;
  }
}

TEST_F(FinetuneRun, DefaultsAreThePapersAndTheModelIsTheCheckpoints) {
  FinetuneOptions options;
  tune("a", {"--capacity-factor", "2"}, &options);
  const ModelConfig model = model_config(newest("a"));
  EXPECT_EQ(model.dropout, 0.1);
  EXPECT_EQ(model.expert_dropout, 0.4);
  EXPECT_EQ(model.jitter, 0.02);
  EXPECT_EQ(model.d_model, 16);
  EXPECT_EQ(model.capacity_factor, 2);
  EXPECT_EQ(options.learning.lr, 1e-3);
  for (const auto& row : metrics("a", "train")) EXPECT_EQ(row["lr"], 1e-3);
}

TEST_F(FinetuneRun, AFreshOptimizerBeginsAtStepZero) {
  tune("a", {"--fresh-optimizer"});
  EXPECT_EQ(newest("a").meta().step, 6);
  tune("b", {});
  EXPECT_NE(newest("a").digest(), newest("b").digest());
}

TEST_F(FinetuneRun, TheSameCommandLineGoesOnToTheSameBits) {
  const std::vector<std::string> evaluated = {"--eval-task", path("held.tsv"), "--eval-every", "2"};
  tune("a", evaluated);
  tune("b", with(evaluated, {"--steps", "3"}));
  // It needs no starting point any more.
  std::filesystem::rename(path("from"), path("gone"));
  tune("b", evaluated);
  EXPECT_EQ(newest("a").digest(), newest("b").digest());
}

TEST_F(FinetuneRun, TheBestCheckpointStays) {
  tune("a", {"--eval-task", path("held.tsv"), "--eval-every", "1", "--best", "neg_log_perplexity",
             "--lr", "0.3", "--steps", "12", "--keep-last", "2", "--save-every", "0"});
  double best = -1e9;
  int64_t step = 0;
  const auto rows = metrics("a", "eval");
  ASSERT_EQ(rows.size(), 12u);
  for (const auto& row : rows) {
    EXPECT_TRUE(row.contains("accuracy"));
    if (row["neg_log_perplexity"] <= best) continue;
    best = row["neg_log_perplexity"];
    step = row["step"];
  }
  const CheckpointReader reader((path("a") / "best").string());
  EXPECT_EQ(reader.meta().step, step);
  EXPECT_EQ(std::get<double>(reader.meta().attributes.at("best_score")), best);
  EXPECT_EQ(newest("a").meta().step, 17);
}

TEST_F(FinetuneRun, AnotherMetricLooksForTheBestAnew) {
  const std::vector<std::string> evaluated = {"--eval-task", path("held.tsv"), "--eval-every",
                                              "1",           "--keep-last",    "2"};
  tune("a", with(evaluated, {"--steps", "2", "--best", "accuracy"}));
  EXPECT_TRUE(std::get<std::string>(newest("a").meta().attributes.at("best_of"))
                  .starts_with("accuracy on "));
  // No log likelihood, which is below 0, is above a percentage.
  tune("a", with(evaluated, {"--steps", "4", "--best", "neg_log_perplexity"}));
  const CheckpointReader best((path("a") / "best").string());
  EXPECT_GE(best.meta().step, 8);
  EXPECT_LT(std::get<double>(best.meta().attributes.at("best_score")), 0);
  // The same metric on other examples is another score.
  write_pairs("other.tsv", 3);
  tune("a", with(evaluated, {"--steps", "5", "--best", "neg_log_perplexity", "--eval-task",
                             path("other.tsv")}));
  EXPECT_EQ(CheckpointReader((path("a") / "best").string()).meta().step, 10);
}

TEST_F(FinetuneRun, AnEvaluationThatNoCheckpointKnowsOfIsMadeAgain) {
  tune("a", {"--steps", "2"});
  // As a kill leaves it after the evaluation's line.
  std::ofstream(path("a") / "metrics.jsonl", std::ios::app)
      << R"({"kind":"eval","step":7,"time":0,"data":"held.tsv"})"
      << "\n";
  const std::vector<std::string> judged = {"--eval-task",        path("held.tsv"), "--best",
                                           "neg_log_perplexity", "--steps",        "2"};
  tune("a", judged);
  EXPECT_EQ(CheckpointReader((path("a") / "best").string()).meta().step, 7);
  EXPECT_EQ(metrics("a", "eval").size(), 2u);
  tune("a", judged);
  EXPECT_EQ(metrics("a", "eval").size(), 2u);
}

TEST_F(FinetuneRun, AnUnlabelledEvalTaskIsRefusedBeforeTheRunBegins) {
  std::ofstream(path("test.jsonl")) << "{\"sentence\": \"ba\", \"label\": -1}\n";
  EXPECT_THAT(message_of(ErrorKind::corrupt,
                         [&] {
                           tune("no", {"--eval-task", "cola:" + path("test.jsonl").string()});
                         }),
              HasSubstr("answers cannot be judged"));
  EXPECT_FALSE(std::filesystem::exists(path("no")));
}

TEST_F(FinetuneRun, WhatDoesNotFitIsSaidWithARemedy) {
  const auto refused = [&](ErrorKind kind, const std::vector<std::string>& more) {
    return message_of(kind, [&] { tune("no", more); });
  };
  EXPECT_THAT(refused(ErrorKind::usage, {"--d-model", "32"}),
              AllOf(HasSubstr("d-model is 32"), HasSubstr("leave it out")));
  EXPECT_THAT(refused(ErrorKind::usage, {"--experts", "8"}), HasSubstr("experts is 8"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--optimizer", "adamw"}), HasSubstr("--fresh-optimizer"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--best", "score"}), HasSubstr("give --eval-task"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--eval-task", path("held.tsv"), "--best", "acuracy"}),
              AllOf(HasSubstr("did you mean 'accuracy'"), HasSubstr("score, neg_log_perplexity")));
  EXPECT_THAT(refused(ErrorKind::usage, {"--task", "-"}), HasSubstr("give a file"));
  EXPECT_FALSE(std::filesystem::exists(path("no")));
}

TEST_F(FinetuneRun, OtherTasksAreRefusedOnResume) {
  tune("a", {"--steps", "3"});
  write_pairs("pairs.tsv", 61);
  EXPECT_THAT(message_of(ErrorKind::usage, [&] { tune("a", {}); }), HasSubstr("other data"));
}

TEST(ScoreOf, TakesTheMeanOfMeans) {
  Evaluation first, second;
  first.metrics = {{"f1", 80}, {"accuracy", 60}};
  first.neg_log_perplexity = -1;
  second.metrics = {{"accuracy", 50}};
  second.neg_log_perplexity = -2;
  EXPECT_EQ(score_of({first, second}, "score"), 60);
  EXPECT_EQ(score_of({first, second}, "accuracy"), 55);
  EXPECT_EQ(score_of({first, second}, "f1"), 80);
  EXPECT_EQ(score_of({first, second}, "neg_log_perplexity"), -1.5);
}

}  // namespace
}  // namespace sw
