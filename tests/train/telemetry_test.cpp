#include "libswitch/train/telemetry.h"

#include <gtest/gtest.h>

namespace sw {
namespace {

StepResult made_up_result(int64_t step, int64_t experts) {
  StepResult result;
  result.loss = 1.0 / static_cast<double>(step);
  for (const char* name : {"encoder/block_001", "decoder/block_001"}) {
    RouterStatistics layer;
    layer.name = name;
    layer.experts = experts;
    layer.tokens = 10;
    layer.slots = 3 * experts;
    layer.capacity = 1;
    layer.chosen.assign(static_cast<size_t>(experts), step);
    layer.kept.assign(static_cast<size_t>(experts), step);
    layer.probability.assign(static_cast<size_t>(experts), 0.5);
    result.layers.push_back(layer);
  }
  return result;
}

void add(TelemetryLog& log, int64_t step, int64_t experts = 4) {
  log.add(step, made_up_result(step, experts), 0.01, 100);
}

TEST(TelemetryLog, KeepsRecentStepsWholeAndThinsOlderOnes) {
  TelemetryLog log;
  constexpr int64_t kSteps = 20000;
  for (int64_t step = 1; step <= kSteps; ++step) add(log, step);
  const Telemetry& t = log.telemetry();
  check_telemetry(t);
  EXPECT_LE(t.train.step.size(), static_cast<size_t>(TelemetryLog::kMaxRows));
  EXPECT_GE(t.train.step.size(), static_cast<size_t>(TelemetryLog::kMaxRows / 2));
  EXPECT_EQ(t.train.step.front(), 1);
  EXPECT_EQ(t.train.step.back(), kSteps);
  EXPECT_EQ(t.train.step[t.train.step.size() - 1000], kSteps - 999);
  EXPECT_EQ(t.router.step, t.train.step);
  for (size_t row = 0; row < t.router.step.size(); ++row) {
    ASSERT_EQ(t.router.tokens[row * 8], static_cast<uint64_t>(t.router.step[row]));
    ASSERT_EQ(t.router.capacity[row * 2], 3u);  // of all groups
    ASSERT_EQ(t.train.loss[row], 1.0 / static_cast<double>(t.router.step[row]));
  }
}

TEST(TelemetryLog, GoesOnFromACheckpointAsIfUnbroken) {
  TelemetryLog unbroken, broken;
  for (int64_t step = 1; step <= 9000; ++step) {
    add(unbroken, step);
    add(broken, step);
    if (step % 700 == 0) broken = TelemetryLog(Telemetry(broken.telemetry()));
  }
  EXPECT_EQ(unbroken.telemetry(), broken.telemetry());
}

TEST(TelemetryLog, BoundsTheMemoryOfManyExperts) {
  TelemetryLog log;
  for (int64_t step = 1; step <= 400; ++step) add(log, step, 40000);
  const auto rows = static_cast<int64_t>(log.telemetry().router.step.size());
  EXPECT_LE(rows * 2 * 40000 * 12, TelemetryLog::kMaxRouterBytes);
  EXPECT_GE(rows, TelemetryLog::kMinRows / 2);
  EXPECT_EQ(log.telemetry().train.step.size(), 400u);
}

TEST(TelemetryLog, LeavesRouterRowsOfSkippedStepsOut) {
  TelemetryLog log;
  add(log, 1);
  StepResult bad;
  bad.finite = false;
  log.add(2, bad, 0.01, 100);
  EXPECT_EQ(log.telemetry().train.step.size(), 2u);
  EXPECT_EQ(log.telemetry().router.step.size(), 1u);
}

}  // namespace
}  // namespace sw
