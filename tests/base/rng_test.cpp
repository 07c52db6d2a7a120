#include "libswitch/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sw {
namespace {

// Known answers of Random123's kat_vectors for philox4x32-10.
TEST(Rng, PhiloxMatchesItsAuthorsKnownAnswers) {
  EXPECT_EQ(philox({0}, 0, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~uint64_t{0}}, ~uint64_t{0}, ~uint64_t{0}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox({uint64_t{0x299f31d0} << 32 | 0xa4093822}, uint64_t{0x85a308d3} << 32 | 0x243f6a88,
             uint64_t{0x03707344} << 32 | 0x13198a2e),
      (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, StreamsOfDifferentCoordinatesDiffer) {
  const RngKey a = rng_key(1, RngPurpose::dropout, 1, 2, 3);
  EXPECT_NE(a.value, rng_key(1, RngPurpose::dropout, 1, 3, 2).value);
  EXPECT_NE(a.value, rng_key(2, RngPurpose::dropout, 1, 2, 3).value);
  EXPECT_NE(a.value, rng_key(1, RngPurpose::jitter, 1, 2, 3).value);
}

TEST(Rng, TruncatedNormalStaysWithinTwoAndHasTheKnownDeviation) {
  const RngKey key = rng_key(7, RngPurpose::test, "x");
  double sum = 0, squares = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double x = random_truncated_normal(key, i);
    ASSERT_LE(std::abs(x), 2.0);
    sum += x, squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0.0, 0.01);
  EXPECT_NEAR(std::sqrt(squares / n), 0.8796,
              0.005);  // standard deviation of a normal cut at 2 sigma
}

TEST(Rng, BelowIsUniform) {
  RngStream stream(rng_key(1, RngPurpose::test));
  std::array<int, 7> counts{};
  for (int i = 0; i < 70000; ++i) ++counts[stream.below(7)];
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
}

}  // namespace
}  // namespace sw
