#include "libswitch/nn/relative_bias.h"

#include <gtest/gtest.h>

#include <vector>

namespace sw {
namespace {

// First distance of every bucket from `exact` up, as the reference implementation gives them.
void expect_starts(bool bidirectional, int64_t buckets, int64_t max_distance,
                   const std::vector<int64_t>& starts) {
  const int64_t exact = (bidirectional ? buckets / 2 : buckets) / 2;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t bucket = exact + static_cast<int64_t>(i);
    EXPECT_EQ(relative_bucket(-starts[i], bidirectional, buckets, max_distance), bucket);
    EXPECT_EQ(relative_bucket(-(starts[i] - 1), bidirectional, buckets, max_distance), bucket - 1);
  }
}

TEST(RelativeBias, BucketsStartWhereTheReferenceHasThem) {
  expect_starts(true, 32, 128, {8, 12, 16, 23, 32, 46, 64, 91});
  expect_starts(false, 32, 128, {16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113});
  expect_starts(true, 8, 16, {2, 6});
  expect_starts(false, 8, 16, {4, 6, 8, 12});
}

TEST(RelativeBias, KeysAfterTheQueryHaveBucketsOfTheirOwnOnlyWhenBidirectional) {
  EXPECT_EQ(relative_bucket(3, true, 32, 128), 19);
  EXPECT_EQ(relative_bucket(1000, true, 32, 128), 31);
  EXPECT_EQ(relative_bucket(3, false, 32, 128), 0);
  EXPECT_EQ(relative_bucket(-1000, false, 32, 128), 31);
}

TEST(RelativeBias, DiagonalsRunFromTheLastQueryToTheLastKey) {
  const Tensor buckets = relative_buckets(3, 4, true, 32, 128);
  ASSERT_EQ(buckets.elements(), 6);
  const int32_t* b = buckets.data<int32_t>();
  EXPECT_EQ(b[0], 2);   // key 0, query 2
  EXPECT_EQ(b[2], 0);   // the diagonal
  EXPECT_EQ(b[5], 19);  // key 3, query 0
}

}  // namespace
}  // namespace sw
