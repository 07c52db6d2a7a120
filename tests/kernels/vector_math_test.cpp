#include "libswitch/kernels/cpu/vector_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "libswitch/kernels/cpu/random_words.h"

namespace sw::kernels::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Units in the last place of the float nearest to `want`.
double ulps(float got, double want) {
  const auto nearest = static_cast<float>(want);
  const double unit = static_cast<double>(std::nextafter(std::fabs(nearest), kInfinity)) -
                      static_cast<double>(std::fabs(nearest));
  return std::fabs(static_cast<double>(got) - want) / unit;
}

TEST(VectorMath, ExpIsWithinTwoUnitsOverItsWholeRange) {
  double worst = 0;
  for (double x = -86.6; x < 88.72; x += 0.000137) {
    const auto argument = static_cast<float>(x);
    worst = std::max(worst, ulps(vector_exp(argument), std::exp(static_cast<double>(argument))));
  }
  EXPECT_LT(worst, 2.0);
}

TEST(VectorMath, ExpHasItsLimits) {
  EXPECT_EQ(vector_exp(0.0f), 1.0f);
  EXPECT_EQ(vector_exp(-kInfinity), 0.0f);
  EXPECT_EQ(vector_exp(-87.0f), 0.0f);
  EXPECT_EQ(vector_exp(-1e30f), 0.0f);
  EXPECT_EQ(vector_exp(kInfinity), kInfinity);
  EXPECT_EQ(vector_exp(89.0f), kInfinity);
  EXPECT_TRUE(std::isfinite(vector_exp(88.722f)));
  EXPECT_TRUE(std::isnan(vector_exp(kNan)));
}

TEST(RandomWords, AreTheStreamsWordsFromAnyIndexOn) {
  const RngKey key = rng_key(7, RngPurpose::test);
  for (const uint64_t first : {uint64_t{0}, uint64_t{1}, uint64_t{63}, uint64_t{1001},
                               (uint64_t{1} << 34) - 70, (uint64_t{1} << 40) + 3}) {
    for (const size_t count :
         {size_t{0}, size_t{1}, size_t{3}, size_t{64}, size_t{129}, size_t{400}}) {
      std::vector<uint32_t> words(count + 1, 0xABCDEF01u);
      random_words(key, first, std::span(words).first(count));
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ(words[i], random_u32(key, first + i)) << "first " << first << " word " << i;
      }
      EXPECT_EQ(words[count], 0xABCDEF01u);
    }
  }
}

TEST(RandomWords, UniformIsThatOfTheStream) {
  for (const uint32_t word : {0u, 255u, 256u, 0x80000000u, 0xFFFFFFFFu, 0x12345678u}) {
    EXPECT_EQ(uniform_of(word), to_uniform(word));
  }
}

}  // namespace
}  // namespace sw::kernels::cpu
