#include "libswitch/moe/statistics.h"

#include <nlohmann/json.hpp>

#include "tests/moe/routing_case.h"

namespace sw {
namespace {

RouterConfig config_of(int64_t experts, int64_t capacity) {
  RouterConfig config;
  config.experts = experts;
  config.capacity_rule = CapacityRule::constant;
  config.expert_capacity = capacity;
  return config;
}

RouterStatistics observe(const RouterConfig& config, const RouterInput& input) {
  const auto router = make_router(config);
  return router_statistics("encoder.block_001", input, router->assign(input), config.padding_rule);
}

TEST(RouterStatistics, DescribeAHandMadePlan) {
  RouterInput input = input_choosing({0, 0, 0, 1, 2}, 4);
  input.nonpadding = mask_of({1, 1, 1, 1, 0});
  const RouterStatistics s = observe(config_of(4, 2), input);
  EXPECT_EQ(s.tokens, 4);
  EXPECT_EQ(s.dropped_tokens, 1);
  EXPECT_DOUBLE_EQ(s.load(0), 0.75);
  EXPECT_DOUBLE_EQ(s.load(2), 0);  // padding
  EXPECT_DOUBLE_EQ(s.max_over_mean(), 3);
  EXPECT_EQ(s.dead(), 2);
  EXPECT_DOUBLE_EQ(s.dropped_share(), 0.25);
  EXPECT_DOUBLE_EQ(s.capacity_use(), 3.0 / 8);
  EXPECT_NEAR(s.load_entropy(), -(.75 * std::log(.75) + .25 * std::log(.25)) / std::log(4.0),
              1e-12);
  const double p = std::exp(3.0) / (std::exp(3.0) + 3), q = (1 - p) / 3;
  EXPECT_NEAR(s.confidence(), p, 1e-6);
  EXPECT_NEAR(s.token_entropy(), -(p * std::log(p) + 3 * q * std::log(q)) / std::log(4.0), 1e-6);
  double sum = 0;
  for (double value : s.probability) sum += value;
  EXPECT_NEAR(sum, 4, 1e-6);
}

TEST(RouterStatistics, AddUpOverShardsAndSteps) {
  const std::vector<double> logits = random_logits(64, 4, 5);
  RouterConfig config = config_of(4, 5);
  config.max_group_size = 16;
  const RouterStatistics whole = observe(config, input_of(logits, 4));
  RouterStatistics merged;
  for (int part = 0; part < 2; ++part) {
    RouterInput input =
        input_of({logits.begin() + part * 128, logits.begin() + (part + 1) * 128}, 4);
    input.shards = 2;
    RouterStatistics one = observe(config, input);
    one.add_losses(0.6, 1.5, 0.5);  // shares of a shard
    merged.merge(one);
  }
  EXPECT_EQ(merged.name, "encoder.block_001");
  EXPECT_EQ(merged.tokens, whole.tokens);
  EXPECT_EQ(merged.dropped_tokens, whole.dropped_tokens);
  EXPECT_EQ(merged.chosen, whole.chosen);
  EXPECT_EQ(merged.kept, whole.kept);
  EXPECT_EQ(merged.slots, whole.slots);
  EXPECT_NEAR(merged.gate_sum, whole.gate_sum, 1e-12);
  EXPECT_NEAR(merged.entropy_sum, whole.entropy_sum, 1e-10);
  EXPECT_DOUBLE_EQ(merged.aux(), 1.2);
  EXPECT_DOUBLE_EQ(merged.z(), 3);
  merged.merge(RouterStatistics{});
  EXPECT_EQ(merged.tokens, 64);
  EXPECT_EQ(thrown_kind([&] {
              merged.merge(observe(config_of(3, 5), input_of({0, 1, 2}, 3)));
            }),
            ErrorKind::internal);
}

TEST(RouterStatistics, OfNothingAreZerosNotNumbersThatAreNone) {
  RouterInput input = input_choosing({0, 1}, 2);
  input.nonpadding = mask_of({0, 0});
  const RouterStatistics s = observe(config_of(2, 2), input);
  for (double value : {s.load(0), s.max_over_mean(), s.load_entropy(), s.dropped_share(),
                       s.confidence(), s.token_entropy(), s.aux(), s.z()}) {
    EXPECT_EQ(value, 0);
  }
  EXPECT_EQ(s.dead(), 2);
}

TEST(RouterStatistics, OneExpertIsEven) {
  const RouterStatistics s = observe(config_of(1, 9), input_of({1, 2}, 1));
  EXPECT_EQ(s.max_over_mean(), 1);
  EXPECT_EQ(s.load_entropy(), 1);
  EXPECT_EQ(s.dead(), 0);
}

TEST(RouterStatistics, JsonHasTheContractsNames) {
  RouterStatistics s = observe(config_of(2, 9), input_choosing({0, 1, 1, 1}, 2));
  s.add_losses(1.25, 2);
  const nlohmann::json j = to_json(s);
  for (const char* key : {"name", "experts", "tokens", "load", "max_over_mean", "entropy", "dead",
                          "dropped_share", "confidence", "aux_loss"}) {
    EXPECT_TRUE(j.contains(key)) << key;
  }
  EXPECT_EQ(j["load"], (std::vector<double>{0.25, 0.75}));
  EXPECT_EQ(j["aux_loss"], 1.25);
}

}  // namespace
}  // namespace sw
