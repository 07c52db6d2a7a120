#include "tests/moe/routing_case.h"

namespace sw {
namespace {

using Ints = std::vector<int32_t>;

RouterConfig config_of(int64_t experts, int64_t capacity, int64_t k) {
  RouterConfig config;
  config.kind = RouterKind::ntlb;
  config.experts = experts;
  config.capacity_rule = CapacityRule::constant;
  config.expert_capacity = capacity;
  config.ntlb_k = k;
  return config;
}

// Four tokens that prefer expert 0, then 1, then 2.
RouterInput equal_tokens() {
  std::vector<double> logits;
  for (int n = 0; n < 4; ++n) logits.insert(logits.end(), {3, 2, 1});
  return input_of(logits, 3);
}

TEST(NtlbRouter, ATokenWithoutAPlaceTriesItsNextExpert) {
  const RoutingPlan plan = make_router(config_of(3, 1, 3))->assign(equal_tokens());
  check_plan(plan);
  EXPECT_EQ(ints(plan.expert), (Ints{0, 1, 2, 0}));  // the last found no place
  EXPECT_EQ(ints(plan.slot), (Ints{0, 0, 0, -1}));
  EXPECT_EQ(plan.chosen, (std::vector<int64_t>{4, 0, 0}));
  EXPECT_EQ(plan.dropped_tokens, 1);
  const double sum = std::exp(3.0) + std::exp(2.0) + std::exp(1.0);
  EXPECT_NEAR(plan.gate.to_vector()[1], std::exp(2.0) / sum, 1e-6);
  EXPECT_EQ(plan.gate.to_vector()[3], 0);
}

TEST(NtlbRouter, OneRoundIsSwitchRouting) {
  const RouterInput input = input_of(random_logits(40, 5, 3), 5);
  RouterConfig config = config_of(5, 6, 1);
  const RoutingPlan ntlb = make_router(config)->assign(input);
  config.kind = RouterKind::switch_top1;
  const RoutingPlan once = make_router(config)->assign(input);
  EXPECT_EQ(ints(ntlb.expert), ints(once.expert));
  EXPECT_EQ(ints(ntlb.slot), ints(once.slot));
  EXPECT_GT(once.dropped_tokens, 0);
}

TEST(NtlbRouter, TheFirstRoundGoesBeforeTheSecond) {
  // Token 0 and 1 want expert 0, token 2 wants expert 1 first: it keeps its place although token 1
  // asks for it earlier in the sequence.
  const RoutingPlan plan =
      make_router(config_of(3, 1, 2))->assign(input_of({3, 2, 1, 3, 2, 1, 0, 4, 1}, 3));
  check_plan(plan);
  EXPECT_EQ(ints(plan.slot), (Ints{0, -1, 0}));
}

TEST(NtlbRouter, CountsAllCandidatesInTheBalance) {
  const auto router = make_router(config_of(3, 1, 2));
  const RouterInput input = equal_tokens();
  const RouterLossTerms terms = router->loss_terms(input, router->assign(input));
  EXPECT_EQ(terms.assigned, (std::vector<double>{4, 4, 0}));
  EXPECT_EQ(terms.assigned_divisor, 8);
}

TEST(NtlbRouter, TiesGoToTheLowestIndices) {
  const RoutingPlan plan =
      make_router(config_of(4, 1, 4))->assign(input_of(std::vector<double>(16, 0.0), 4));
  EXPECT_EQ(ints(plan.expert), (Ints{0, 1, 2, 3}));
}

}  // namespace
}  // namespace sw
