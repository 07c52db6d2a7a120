#include "libswitch/train/distill_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "libswitch/base/file.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/distill_comparison.h"
#include "libswitch/train/evaluation.h"
#include "libswitch/train/pretrain_run.h"
#include "tests/support/tool_case.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::with;

class DistillRun : public testing::TrainingTest {
 protected:
  DistillRun() {
    testing::write_shard(path("train.swt"), 60);
    testing::write_shard(path("held.swt"), 8, 2);
    std::ofstream(path("small.toml")) << "[model]\nd_model = 16\nd_kv = 8\nheads = 2\nd_ff = 32\n"
                                         "encoder_layers = 2\ndecoder_layers = 2\nexperts = 4\n";
    pretrain_with("teacher", {});
  }
  std::vector<std::string> common(const std::string& run) const {
    return {"--data",         path("train.swt"),
            "--run",          path(run),
            "--steps",        "6",
            "--batch",        "4",
            "--dtype",        "fp32",
            "--warmup",       "10",
            "--save-every",   "2",
            "--input-length", "24"};
  }
  void pretrain_with(const std::string& run, const std::vector<std::string>& more) {
    PretrainOptions options;
    testing::call_tool(&declare_pretrain_options, &pretrain,
                       with(with({"--preset", path("small.toml")}, common(run)), more), options);
  }
  TrainOutcome distill_with(const std::string& run, const std::vector<std::string>& more,
                            DistillOptions* resolved = nullptr) {
    DistillOptions options;
    const TrainOutcome outcome =
        testing::call_tool(&declare_distill_options, &distill,
                           with(with({"--teacher", path("teacher")}, common(run)), more), options);
    if (resolved != nullptr) *resolved = options;
    return outcome;
  }
  TrainingPlan plan_with(const std::string& run, const std::vector<std::string>& more) {
    DistillOptions options;
    return testing::call_tool(&declare_distill_options, &plan_distillation,
                              with(with({"--teacher", path("teacher")}, common(run)), more),
                              options);
  }
  // -c FIRST/config.toml --run SECOND
  TrainOutcome repeat(const std::string& first, const std::string& second) const {
    DistillOptions options;
    OptionRegistry registry;
    declare_distill_options(registry, options);
    registry.set("run", path(second).string(), Source::flag, "--run");
    registry.apply_toml_file((path(first) / "config.toml").string(), Source::file);
    RunContext context{process_world(), registry, "sw-distill", {}, {}, false, {}};
    context.log.level = log::Level::error;
    return distill(options, context);
  }
  CheckpointReader newest(const std::string& run) const {
    return open_checkpoint(path(run).string());
  }
  double held_out(const std::string& run) const {
    const CheckpointReader reader = newest(run);
    DatasetOptions options;
    options.input_length = 24;
    const EvalSet set(path("held.swt"), options);
    return evaluate_set(*load_model(reader), set, "held").neg_log_perplexity;
  }
};

TEST_F(DistillRun, ADenseStudentBeginsWithAllThatIsNoExpert) {
  distill_with("s", {"--steps", "0"});
  const CheckpointReader teacher = newest("teacher"), student = newest("s");
  EXPECT_EQ(student.meta().step, 0);
  int64_t same = 0, fresh = 0;
  for (const TensorEntry& entry : student.entries()) {
    if (!entry.path.starts_with("/model/")) continue;
    std::string path = entry.path;
    if (!teacher.contains(path)) {
      // The norm of a feed-forward layer that was sparse.
      if (!path.ends_with("block_001/mlp/norm")) {
        EXPECT_THAT(path, HasSubstr("block_001/mlp/w"));
        ++fresh;
        continue;
      }
      path.replace(path.find("/mlp/"), 5, "/moe/");
    }
    EXPECT_EQ(student.read(entry.path).to_vector(), teacher.read(path).to_vector()) << entry.path;
    ++same;
  }
  EXPECT_EQ(fresh, 4);
  EXPECT_GT(same, 30);
}

TEST_F(DistillRun, TheSameCommandLineGoesOnToTheSameBits) {
  distill_with("a", {"--temperature", "2"});
  distill_with("b", {"--temperature", "2", "--steps", "3"});
  distill_with("b", {"--temperature", "2"});
  EXPECT_EQ(newest("a").digest(), newest("b").digest());
  distill_with("c", {});
  EXPECT_NE(newest("a").digest(), newest("c").digest());
}

TEST_F(DistillRun, ItsConfigRepeatsIt) {
  distill_with("a", {"--soft-weight", "0.5"});
  repeat("a", "b");
  EXPECT_EQ(newest("a").digest(), newest("b").digest());
}

TEST_F(DistillRun, ItsConfigRepeatsItWithAStudentOfAPreset) {
  pretrain_with("student", {"--experts", "0"});
  distill_with("a", {"--student", path("student")});
  EXPECT_EQ(newest("a").meta().preset, newest("student").meta().preset);
  repeat("a", "b");
  EXPECT_EQ(newest("a").digest(), newest("b").digest());
  repeat("a", "b");  // finished
  EXPECT_EQ(newest("b").meta().preset, newest("student").meta().preset);
}

TEST_F(DistillRun, GoesOnWithTheExpertsOfTheRunAndNotOfItsPreset) {
  for (const auto& [run, more] : {std::pair<std::string, std::vector<std::string>>{"dense", {}},
                                  {"sparse", {"--keep-experts", "2"}}}) {
    const auto command = with({"--preset", path("small.toml")}, more);
    distill_with(run, with({"--steps", "3"}, command));
    plan_with(run, command);
    EXPECT_EQ(distill_with(run, command), TrainOutcome::finished);
    distill_with(run + "-whole", command);
    EXPECT_EQ(newest(run).digest(), newest(run + "-whole").digest());
  }
  EXPECT_THAT(
      message_of(ErrorKind::usage,
                 [&] {
                   distill_with("dense", {"--preset", path("small.toml"), "--experts", "4"});
                 }),
      HasSubstr("was trained with 0"));
}

TEST_F(DistillRun, GoesOnWithoutRepeatingWhereItsWeightsCameFrom) {
  pretrain_with("student", {"--experts", "0"});
  for (const auto& [run, option, value] :
       {std::tuple<std::string, std::string, std::string>{"s", "--student", path("student")},
        {"k", "--keep-experts", "2"}}) {
    distill_with(run, {option, value, "--steps", "3"});
    EXPECT_EQ(distill_with(run, {}), TrainOutcome::finished);
    distill_with(run + "-whole", {option, value});
    EXPECT_EQ(newest(run).digest(), newest(run + "-whole").digest());
    EXPECT_EQ(newest(run).meta().preset, newest(run + "-whole").meta().preset);
  }
  EXPECT_THAT(message_of(ErrorKind::usage,
                         [&] {
                           distill_with("k", {"--keep-experts", "3"});
                         }),
              HasSubstr("was trained with 2; give 2"));
  EXPECT_THAT(message_of(ErrorKind::usage,
                         [&] {
                           distill_with("k", {"--student", path("student")});
                         }),
              HasSubstr("but --student has its own"));
}

TEST_F(DistillRun, TheTeacherWithAllItsExpertsIsTheTeacher) {
  for (const char* usage : {"data", "telemetry"}) {
    const std::string run = std::string("all-") + usage;
    distill_with(run, {"--keep-experts", "4", "--steps", "0", "--expert-usage", usage});
    EXPECT_EQ(held_out(run), held_out("teacher"));
  }
}

TEST_F(DistillRun, ASparseStudentHasTheMostUsedExpertsAndTheirColumns) {
  distill_with("s", {"--keep-experts", "2", "--steps", "0", "--expert-usage", "telemetry"});
  const CheckpointReader teacher = newest("teacher"), student = newest("s");
  const RouterTelemetry use = teacher.read_telemetry().router;
  for (size_t layer = 0; layer < use.layer_name.size(); ++layer) {
    std::vector<double> chosen(4);
    for (size_t t = 0; t < use.step.size(); ++t) {
      for (size_t e = 0; e < 4; ++e) {
        chosen[e] += static_cast<double>(use.tokens[(t * use.layer_name.size() + layer) * 4 + e]);
      }
    }
    const std::string name = "/model/" + use.layer_name[layer] + "/moe/";
    const auto router = student.read(name + "router").to_vector();
    const auto whole = teacher.read(name + "router").to_vector();
    std::vector<int64_t> kept;
    for (int64_t e = 0; e < 4; ++e) {
      int64_t better = 0;
      for (int64_t other = 0; other < 4; ++other) {
        better += chosen[other] > chosen[e] || (chosen[other] == chosen[e] && other < e);
      }
      if (better < 2) kept.push_back(e);
    }
    ASSERT_EQ(kept.size(), 2u);
    for (int64_t i = 0; i < 2; ++i) {
      EXPECT_EQ(student.read_rows(name + "wi", i, i + 1).to_vector(),
                teacher.read_rows(name + "wi", kept[i], kept[i] + 1).to_vector());
      for (int64_t d = 0; d < 16; ++d) EXPECT_EQ(router[d * 2 + i], whole[d * 4 + kept[i]]);
    }
  }
}

TEST_F(DistillRun, ASparseStudentLearnsWithRouterLosses) {
  EXPECT_EQ(distill_with("s", {"--keep-experts", "2"}), TrainOutcome::finished);
  std::ifstream in(path("s") / "metrics.jsonl");
  std::string line;
  std::getline(in, line);
  const auto first = nlohmann::json::parse(line);
  // The labels' share of the loss.
  EXPECT_GT(first["aux_loss"], 0.7 * 0.75 * 0.02);
  EXPECT_LT(first["aux_loss"], 2 * 0.75 * 0.02);
}

TEST_F(DistillRun, TellsBothTermsOfTheLoss) {
  distill_with("s", {"--soft-weight", "0.6"});
  std::ifstream in(path("s") / "metrics.jsonl");
  std::string line;
  std::getline(in, line);
  const auto first = nlohmann::json::parse(line);
  const double hard = first["cross_entropy"], soft = first["soft_cross_entropy"];
  EXPECT_GT(std::abs(hard - soft), 0.02);
  // What is missing is the output's z-loss.
  EXPECT_NEAR(first["loss"], 0.4 * hard + 0.6 * soft, 0.01);
  EXPECT_GT(first["teacher_cross_entropy"], 1);
}

TEST_F(DistillRun, ComparesStudentTeacherAndBaseline) {
  pretrain_with("baseline", {"--experts", "0"});
  distill_with("s", {"--baseline", path("baseline"), "--eval-data", path("held.swt")});
  std::ifstream in(path("s") / "metrics.jsonl");
  nlohmann::json event;
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.value("event", "") == "distilled") event = json;
  }
  ASSERT_FALSE(event.is_null());
  const auto& figures = event["neg_log_perplexity"];
  EXPECT_EQ(figures["teacher"], held_out("teacher"));
  EXPECT_EQ(figures["student"], held_out("s"));
  EXPECT_EQ(figures["baseline"], held_out("baseline"));
  EXPECT_GT(event["compression"], 0.1);
  const std::string before = read_file(path("s") / "metrics.jsonl");
  distill_with("s", {"--baseline", path("baseline"), "--eval-data", path("held.swt")});
  EXPECT_EQ(read_file(path("s") / "metrics.jsonl"), before);
}

TEST_F(DistillRun, AStudentGoesOnFromItsCheckpoint) {
  pretrain_with("student", {"--experts", "0"});
  distill_with("s", {"--student", path("student"), "--steps", "0"});
  EXPECT_EQ(held_out("s"), held_out("student"));
}

TEST_F(DistillRun, AllLogitsOfAFileTeachAsTheTeacherDoes) {
  const std::string file = path("said");
  distill_with("live", {"--write-teacher-logits", file, "--teacher-top-k", "128"});
  distill_with("read", {"--teacher-logits", file});
  // As the teacher does, but for the order of its sums.
  EXPECT_NEAR(held_out("read"), held_out("live"), 1e-4);
  distill_with("again", {"--teacher-logits", file, "--steps", "2"});
  distill_with("again", {"--teacher-logits", file});
  EXPECT_EQ(newest("again").digest(), newest("read").digest());
}

TEST_F(DistillRun, AFileOfOtherLogitsIsRefused) {
  const std::string file = path("said");
  distill_with("live", {"--write-teacher-logits", file, "--teacher-top-k", "4"});
  int runs = 0;
  const auto refused = [&](ErrorKind kind, const std::vector<std::string>& more) {
    const std::string run = fmt::format("no-{}", ++runs);
    return message_of(kind, [&] { distill_with(run, with({"--teacher-logits", file}, more)); });
  };
  EXPECT_THAT(refused(ErrorKind::usage, {"--steps", "7"}), HasSubstr("give at most --steps 6"));
  EXPECT_THAT(refused(ErrorKind::corrupt, {"--steps", "7", "--max-tokens", "1M"}),
              HasSubstr("ends before row 24"));
  EXPECT_THAT(refused(ErrorKind::corrupt, {"--seed", "7"}), HasSubstr("of other targets"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--input-length", "32"}), HasSubstr("target positions"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--on-spike", "rollback"}), HasSubstr("rollback"));
  EXPECT_THAT(refused(ErrorKind::corrupt, {"--teacher-logits", path("train.swt")}),
              HasSubstr("teacher logits"));
  std::fstream damaged(file, std::ios::in | std::ios::out | std::ios::binary);
  damaged.seekp(4096 + 100);
  damaged.put('x');
  damaged.close();
  EXPECT_THAT(refused(ErrorKind::corrupt, {}), HasSubstr("row 0 was not written or is damaged"));
}

TEST_F(DistillRun, WhatDoesNotFitIsSaidWithARemedy) {
  const auto refused = [&](ErrorKind kind, const std::vector<std::string>& more) {
    const std::string planned = message_of(kind, [&] { plan_with("no", more); });
    EXPECT_EQ(message_of(kind, [&] { distill_with("no", more); }), planned);
    return planned;
  };
  EXPECT_THAT(refused(ErrorKind::usage, {"--d-model", "24"}),
              AllOf(HasSubstr("shared/embedding is [128, 24]"), HasSubstr("--init fresh")));
  EXPECT_THAT(refused(ErrorKind::corrupt, {"--vocab-size", "256"}), HasSubstr("128 rows"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--conventions", "hf"}), HasSubstr("--conventions paper"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--keep-experts", "5"}), HasSubstr("has 4 experts"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--keep-experts", "2", "--init", "fresh"}),
              HasSubstr("does not go with --init fresh"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--keep-experts", "2", "--experts", "4"}),
              HasSubstr("leave --experts out"));
  EXPECT_THAT(refused(ErrorKind::usage, {"--student", path("teacher"), "--init", "fresh"}),
              HasSubstr("--init is for a student that is made anew"));
  EXPECT_THAT(
      refused(ErrorKind::usage, {"--write-teacher-logits", path("said"), "--teacher-top-k", "129"}),
      HasSubstr("has 128 ids"));
  EXPECT_FALSE(std::filesystem::exists(path("no")));
}

TEST_F(DistillRun, APlanMakesNoFileOfLogits) {
  plan_with("no", {"--write-teacher-logits", path("said")});
  EXPECT_FALSE(std::filesystem::exists(path("said")));
  EXPECT_THAT(message_of(ErrorKind::cannot_create,
                         [&] {
                           plan_with("no", {"--write-teacher-logits", path("absent/said")});
                         }),
              HasSubstr("cannot write"));
  distill_with("s", {"--write-teacher-logits", path("said"), "--teacher-top-k", "4"});
  EXPECT_THAT(message_of(ErrorKind::usage,
                         [&] {
                           plan_with("no", {"--write-teacher-logits", path("said")});
                         }),
              HasSubstr("remove it"));
}

TEST_F(DistillRun, AllExpertsFitASparseStudentInThePlanToo) {
  EXPECT_EQ(plan_with("no", {"--keep-experts", "4"}).resume_step, -1);
  EXPECT_EQ(plan_with("no", {"--keep-experts", "2"}).resume_step, -1);
}

TEST_F(DistillRun, AnotherTeacherIsRefusedOnResume) {
  distill_with("s", {"--steps", "3"});
  pretrain_with("other", {"--seed", "5"});
  EXPECT_THAT(message_of(ErrorKind::usage,
                         [&] {
                           distill_with("s", {"--teacher", path("other")});
                         }),
              HasSubstr("distilled from another teacher"));
  std::filesystem::rename(path("teacher"), path("moved"));
  EXPECT_EQ(distill_with("s", {"--teacher", path("moved")}), TrainOutcome::finished);
}

TEST(Frozen, ATeacherDrawsNoExperts) {
  ModelConfig config;
  config.selection = "sample";
  EXPECT_EQ(frozen(config).selection, "argmax");
}

TEST(ShareKept, IsThatOfThePapersTable6) {
  EXPECT_NEAR(share_kept(-1.636, -1.631, -1.444), 0.03, 0.005);
  EXPECT_NEAR(share_kept(-1.636, -1.598, -1.444), 0.20, 0.005);
  EXPECT_NEAR(share_kept(-1.636, -1.580, -1.444), 0.29, 0.005);
  EXPECT_TRUE(std::isnan(share_kept(-1.4, -1.3, -1.5)));
}

}  // namespace
}  // namespace sw
