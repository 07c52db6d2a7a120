// What the loop does about steps whose loss or gradient jumps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "libswitch/base/file.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TrainingCase;

constexpr int64_t kJump = 114;  // the step, counted from 0

class TrainerHealthTest : public testing::TrainingTest {
 protected:
  // 120 steps, one of which has a loss of ten times the others'.
  std::unique_ptr<TrainingCase> with_a_jump(const std::string& name, OnSpike on_spike) {
    auto run = std::make_unique<TrainingCase>(path(name));
    run->config.steps = 120;
    run->config.save_every = run->config.eval_every = 0;
    run->config.on_spike = on_spike;
    run->objective.on_forward = [](int64_t step, ForwardResult& result) {
      if (step == kJump) result.loss *= 10;
    };
    return run;
  }
  // The events of metrics.jsonl.
  std::vector<nlohmann::json> events(const std::string& name) const {
    std::istringstream lines(read_file(path(name) / "metrics.jsonl"));
    std::vector<nlohmann::json> found;
    for (std::string line; std::getline(lines, line);) {
      auto json = nlohmann::json::parse(line);
      if (json["kind"] == "event") found.push_back(std::move(json));
    }
    return found;
  }
};

TEST_F(TrainerHealthTest, WarnTellsOfAJumpAndLearnsFromIt) {
  const auto run = with_a_jump("warn", OnSpike::warn);
  EXPECT_EQ(run->run(), TrainOutcome::finished);
  const auto told = events("warn");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0]["event"], "spike");
  EXPECT_EQ(told[0]["step"], kJump + 1);
  EXPECT_EQ(told[0]["first_sample"], kJump * 8);
  EXPECT_EQ(told[0]["samples"], 8);
  EXPECT_THAT(told[0]["reason"].get<std::string>(), HasSubstr("far above its mean"));
  EXPECT_EQ(open_checkpoint(path("warn").string()).meta().train.skipped_steps, 0);
}

TEST_F(TrainerHealthTest, SkipPassesOverAJump) {
  const auto run = with_a_jump("skip", OnSpike::skip);
  EXPECT_EQ(run->run(), TrainOutcome::finished);
  const auto told = events("skip");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0]["event"], "skipped");
  EXPECT_EQ(open_checkpoint(path("skip").string()).meta().train.skipped_steps, 1);
  EXPECT_EQ(run->losses().size(), 120u);
  const auto learned = with_a_jump("learned", OnSpike::warn);
  learned->run();
  EXPECT_NE(run->newest_digest(), learned->newest_digest());
}

TEST_F(TrainerHealthTest, StopEndsTheRun) {
  const auto run = with_a_jump("stop", OnSpike::stop);
  EXPECT_THAT(message_of(ErrorKind::diverged, [&] { run->run(); }), HasSubstr("step 115: loss"));
  EXPECT_EQ(events("stop").size(), 1u);
}

TEST_F(TrainerHealthTest, RollbackGoesBackToTheCheckpointAndOnBehindTheData) {
  const auto run = with_a_jump("rollback", OnSpike::rollback);
  run->config.save_every = 50;
  bool jumped = false;
  run->objective.on_forward = [&](int64_t step, ForwardResult& result) {
    if (step == kJump && !std::exchange(jumped, true)) result.loss *= 10;
  };
  EXPECT_EQ(run->run(), TrainOutcome::finished);
  EXPECT_EQ(run->losses().size(), 120u);  // steps 1, 2, ..., each once
  const auto told = events("rollback");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0]["event"], "rollback");
  EXPECT_EQ(told[0]["step"], 100);
  EXPECT_EQ(told[0]["from_step"], kJump + 1);
  EXPECT_EQ(told[0]["first_sample"], 100 * 8);
  EXPECT_EQ(told[0]["samples"], 15 * 8);
  EXPECT_EQ(open_checkpoint(path("rollback").string()).meta().train.data.ordinal, (120 + 15) * 8u);

  // The run goes on behind the data that it passed over.
  const auto longer = with_a_jump("rollback", OnSpike::rollback);
  longer->config.steps = 130;
  std::vector<int64_t> filled;
  longer->objective.on_fill = [&](int64_t step) { filled.push_back(step); };
  EXPECT_EQ(longer->run(), TrainOutcome::finished);
  ASSERT_FALSE(filled.empty());
  EXPECT_EQ(filled.front(), 120 + 15);
}

TEST_F(TrainerHealthTest, RollbackGivesUpAfterTwoTimes) {
  const auto run = with_a_jump("again", OnSpike::rollback);
  run->config.save_every = 50;
  EXPECT_THAT(message_of(ErrorKind::diverged, [&] { run->run(); }),
              HasSubstr("two rollbacks did not help"));
  const auto without = with_a_jump("without", OnSpike::rollback);
  EXPECT_THAT(message_of(ErrorKind::diverged, [&] { without->run(); }),
              HasSubstr("there is no checkpoint to go back to"));
}

TEST_F(TrainerHealthTest, AResumedRunDecidesAlike) {
  const auto unbroken = with_a_jump("unbroken", OnSpike::skip);
  EXPECT_EQ(unbroken->run(), TrainOutcome::finished);
  const auto first = with_a_jump("resumed", OnSpike::skip);
  first->objective.on_forward = [](int64_t step, ForwardResult&) {
    if (step == 110) raise(SIGUSR1);
  };
  EXPECT_EQ(first->run(), TrainOutcome::stopped);
  const auto second = with_a_jump("resumed", OnSpike::skip);
  EXPECT_EQ(second->run(), TrainOutcome::finished);
  EXPECT_EQ(second->newest_digest(), unbroken->newest_digest());
  EXPECT_EQ(events("resumed").size(), 1u);
}

}  // namespace
}  // namespace sw
