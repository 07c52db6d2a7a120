#include "libswitch/train/spikes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sw {
namespace {

using ::testing::HasSubstr;

// Losses around 3 and norms around 0.5.
SpikeWatch after(int64_t steps) {
  SpikeWatch watch;
  for (int64_t i = 0; i < steps; ++i) watch.add(i % 2 == 0 ? 2.9 : 3.1, i % 2 == 0 ? 0.4 : 0.6);
  return watch;
}

TEST(SpikesTest, ALossSixDeviationsAboveItsMeanIsOne) {
  const SpikeWatch watch = after(500);
  EXPECT_NEAR(watch.state().loss_mean, 3, 0.01);
  EXPECT_NEAR(watch.state().loss_variance, 0.01, 0.001);
  EXPECT_EQ(watch.spike(3.55, 0.5), "");
  EXPECT_THAT(watch.spike(3.65, 0.5), HasSubstr("loss 3.65 is far above its mean"));
  EXPECT_EQ(watch.spike(0.1, 0.5), "");  // better than expected is no harm
}

TEST(SpikesTest, AGradientTenTimesItsMeanIsOne) {
  const SpikeWatch watch = after(500);
  EXPECT_EQ(watch.spike(3, 4.8), "");
  EXPECT_THAT(watch.spike(3, 5.5), HasSubstr("gradient norm 5.5 is 11 times its mean"));
}

TEST(SpikesTest, NothingIsKnownOfTheFirstSteps) {
  EXPECT_EQ(after(99).spike(100, 100), "");
  EXPECT_NE(after(100).spike(100, 100), "");
}

TEST(SpikesTest, AFallingLossIsNoSpike) {
  SpikeWatch watch;
  for (int64_t i = 0; i < 1000; ++i) {
    const double loss = 2 + 8.0 / (1 + static_cast<double>(i) / 20) + (i % 3 == 0 ? 0.1 : 0);
    EXPECT_EQ(watch.spike(loss, 1), "") << i;
    watch.add(loss, 1);
  }
}

}  // namespace
}  // namespace sw
