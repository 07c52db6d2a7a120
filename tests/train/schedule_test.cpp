#include "libswitch/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/training_case.h"

namespace sw {
namespace {

TEST(Schedule, RsqrtIsConstantUntilWarmUpAndThenFallsWithTheRoot) {
  const Schedule schedule;
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.01);
  EXPECT_DOUBLE_EQ(schedule.at(9999), 0.01);
  EXPECT_DOUBLE_EQ(schedule.at(10000), 0.01);
  EXPECT_DOUBLE_EQ(schedule.at(40000), 0.005);
}

TEST(Schedule, RsqrtWithoutWarmUpStartsAtTheRate) {
  Schedule schedule;
  schedule.warmup = 0;
  EXPECT_DOUBLE_EQ(schedule.at(0), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(4), 0.5);
}

TEST(Schedule, OtherKindsRiseLinearlyToTheRate) {
  for (const auto kind :
       {Schedule::Kind::constant, Schedule::Kind::linear, Schedule::Kind::cosine}) {
    const Schedule schedule{kind, 2.0, 4, 12, 0.0};
    EXPECT_DOUBLE_EQ(schedule.at(0), 0.5);
    EXPECT_DOUBLE_EQ(schedule.at(3), 2.0);
    EXPECT_DOUBLE_EQ(schedule.at(4), 2.0);
  }
}

TEST(Schedule, LinearAndCosineEndAtTheirShare) {
  const Schedule linear{Schedule::Kind::linear, 2.0, 4, 12, 0.25};
  EXPECT_DOUBLE_EQ(linear.at(8), 2.0 * (0.25 + 0.75 * 0.5));
  EXPECT_DOUBLE_EQ(linear.at(12), 0.5);
  EXPECT_DOUBLE_EQ(linear.at(100), 0.5);
  const Schedule cosine{Schedule::Kind::cosine, 2.0, 4, 12, 0.0};
  EXPECT_DOUBLE_EQ(cosine.at(6), 2.0 * 0.5 * (1 + std::cos(M_PI / 4)));
  EXPECT_NEAR(cosine.at(12), 0.0, 1e-15);
}

TEST(Schedule, RefusesADecayThatEndsWithinTheWarmUp) {
  const Schedule schedule{Schedule::Kind::linear, 1.0, 100, 50, 0.0};
  EXPECT_NE(testing::message_of(ErrorKind::usage, [&] { schedule.validate(); }).find("warm-up"),
            std::string::npos);
}

TEST(Schedule, NamesTheNearestKind) {
  const std::string message = testing::message_of(ErrorKind::usage, [] { schedule_kind("cosin"); });
  EXPECT_NE(message.find("did you mean 'cosine'"), std::string::npos);
}

}  // namespace
}  // namespace sw
