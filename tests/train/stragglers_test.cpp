#include "libswitch/train/stragglers.h"

#include <gtest/gtest.h>

namespace sw {
namespace {

TEST(StragglersTest, NamesTheSlowestRankAndItsGap) {
  StragglerWatch watch;
  const auto slowest = watch.add({1.0, 1.1, 1.5, 0.9});
  EXPECT_EQ(slowest.rank, 2);
  EXPECT_NEAR(slowest.gap, 0.5, 1e-12);
}

TEST(StragglersTest, OfTwoRanksTheSlowerStandsOut) {
  StragglerWatch watch;
  const auto slowest = watch.add({2.0, 1.0});
  EXPECT_EQ(slowest.rank, 0);
  EXPECT_NEAR(slowest.gap, 1.0, 1e-12);
}

TEST(StragglersTest, WarnsOnceOfARankThatStaysSlow) {
  StragglerWatch watch;
  int warnings = 0;
  int64_t first = 0;
  for (int64_t step = 1; step <= 900; ++step) {
    watch.add({1.0, 1.0, 1.0, step > 100 ? 1.3 : 1.0});
    const auto warning = watch.take_warning();
    if (!warning) continue;
    ++warnings;
    first = step;
    EXPECT_EQ(warning->rank, 3);
    EXPECT_GT(warning->gap, 0.1);
  }
  EXPECT_EQ(warnings, 1);
  EXPECT_GE(first, 200);
  EXPECT_LE(first, 220);
}

TEST(StragglersTest, SingleSlowStepsAndSmallGapsAreNoReason) {
  StragglerWatch watch;
  for (int64_t step = 0; step < 1000; ++step) {
    watch.add({1.0, step % 40 == 0 ? 1.8 : 1.0, 1.05, 1.0});
    EXPECT_FALSE(watch.take_warning()) << step;
  }
}

}  // namespace
}  // namespace sw
