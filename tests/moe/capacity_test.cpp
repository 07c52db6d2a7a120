#include "libswitch/moe/capacity.h"

#include "tests/moe/routing_case.h"

namespace sw {
namespace {

RouterConfig config_of(CapacityRule rule, int64_t experts, double train, double eval,
                       int64_t smallest) {
  RouterConfig config;
  config.capacity_rule = rule;
  config.experts = experts;
  config.capacity_factor_train = train;
  config.capacity_factor_eval = eval;
  config.min_capacity = smallest;
  return config;
}

TEST(Capacity, FloorsAndBoundsAsInTheReleasedCode) {
  const auto capacity = [](int64_t size, int64_t experts, double factor) {
    return expert_capacity(config_of(CapacityRule::floor_bounded, experts, factor, factor, 4), size,
                           true);
  };
  EXPECT_EQ(capacity(1024, 128, 1.0), 8);
  EXPECT_EQ(capacity(1024, 128, 1.25), 10);
  EXPECT_EQ(capacity(1024, 128, 2.0), 16);
  EXPECT_EQ(capacity(1024, 512, 1.0), 4);  // floor 2, raised to the smallest
  EXPECT_EQ(capacity(30, 4, 1.25), 9);     // 9.375
  EXPECT_EQ(capacity(24, 2, 1e9), 24);     // never more than the group
  EXPECT_EQ(capacity(1, 8, 1.0), 4);       // the smallest capacity wins over the group's size
}

TEST(Capacity, RoundsHalvesToEvenInFlaxformersRule) {
  const auto capacity = [](int64_t size, int64_t experts, double factor, int64_t smallest) {
    return expert_capacity(
        config_of(CapacityRule::round_half_even, experts, factor, factor, smallest), size, true);
  };
  EXPECT_EQ(capacity(8192, 128, 1.25, 4), 80);
  EXPECT_EQ(capacity(2048, 2048, 1.0, 2), 2);
  EXPECT_EQ(capacity(10, 4, 1.0, 1), 2);  // 2.5
  EXPECT_EQ(capacity(14, 4, 1.0, 1), 4);  // 3.5
  EXPECT_EQ(capacity(8, 2, 4.0, 1), 16);  // no upper bound
}

TEST(Capacity, TrainingAndEvaluationHaveTheirOwnFactors) {
  const RouterConfig config = config_of(CapacityRule::floor_bounded, 4, 1.0, 2.0, 1);
  EXPECT_EQ(expert_capacity(config, 16, true), 4);
  EXPECT_EQ(expert_capacity(config, 16, false), 8);
}

TEST(Capacity, TheConstantRuleKnowsNoFactorAndTheUnlimitedOneTakesAll) {
  RouterConfig config = config_of(CapacityRule::constant, 4, 1.0, 2.0, 1);
  config.expert_capacity = 3;
  EXPECT_EQ(expert_capacity(config, 100, true), 3);
  EXPECT_EQ(expert_capacity(config, 1, false), 3);
  config.capacity_rule = CapacityRule::unlimited;
  EXPECT_EQ(expert_capacity(config, 100, true), 100);
}

TEST(Groups, AreTheFewestThatFitTheShardsAndDivideTheTokens) {
  // 16 shards of 4096 tokens, groups of at most 1024: 64 groups in all, 4 in a shard.
  EXPECT_EQ(split_into_groups(4096, 16, 1024).groups, 4);
  // A group larger than the shard is the shard.
  EXPECT_EQ(split_into_groups(100, 8, 1024).groups, 1);
  // 7 tokens, at most 3: 2 groups do not divide 7, so 7 groups of 1.
  EXPECT_EQ(split_into_groups(7, 1, 3).groups, 7);
  EXPECT_EQ(thrown_kind([] { split_into_groups(0, 1, 8); }), ErrorKind::usage);
  EXPECT_EQ(thrown_kind([] { split_into_groups(8, 1, 0); }), ErrorKind::usage);
}

TEST(Groups, ShardByShardTheyAreThoseOfTheWholeBatch) {
  for (int64_t shards : {1, 2, 3, 4, 8}) {
    for (int64_t tokens = 1; tokens <= 60; ++tokens) {
      for (int64_t largest : {1, 5, 16, 64, 1000}) {
        const int64_t all = tokens * shards;
        int64_t expected = std::max<int64_t>(1, all / largest);
        while (expected % shards != 0 || all % expected != 0) ++expected;
        const GroupSplit split = split_into_groups(tokens, shards, largest);
        ASSERT_EQ(split.groups * shards, expected) << tokens << " " << shards << " " << largest;
        ASSERT_EQ(split.groups * split.size, tokens);
      }
    }
  }
}

}  // namespace
}  // namespace sw
