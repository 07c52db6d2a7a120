#include "tests/moe/routing_case.h"

namespace sw {
namespace {

using Ints = std::vector<int32_t>;

RouterConfig config_of(int64_t experts, int64_t capacity, SecondPolicy second) {
  RouterConfig config;
  config.kind = RouterKind::top2;
  config.experts = experts;
  config.capacity_rule = CapacityRule::constant;
  config.expert_capacity = capacity;
  config.second_train = config.second_eval = second;
  return config;
}

// Tokens with the probabilities 0.5, 0.3 and a rest of 0.2 on the experts named.
RouterInput tokens_choosing(const std::vector<std::array<int, 2>>& pairs) {
  std::vector<double> logits;
  for (const auto& [first, second] : pairs) {
    for (int e = 0; e < 3; ++e) logits.push_back(std::log(e == first ? .5 : e == second ? .3 : .2));
  }
  return input_of(logits, 3);
}

TEST(Top2Router, NormalisesTheTwoLargestGates) {
  const RoutingPlan plan =
      make_router(config_of(3, 9, SecondPolicy::all))->assign(tokens_choosing({{2, 0}, {0, 1}}));
  check_plan(plan);
  EXPECT_EQ(ints(plan.expert), (Ints{2, 0, 0, 1}));
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(plan.gate.to_vector()[i], i % 2 ? .375 : .625, 1e-6);
}

TEST(Top2Router, SecondChoicesComeAfterTheFirstOnesThatWereKept) {
  const RoutingPlan plan = make_router(config_of(3, 3, SecondPolicy::all))
                               ->assign(tokens_choosing({{0, 1}, {1, 0}, {0, 2}, {1, 0}, {2, 1}}));
  check_plan(plan);
  // Expert 0: first choices of tokens 0 and 2, then the second choice of token 1; token 3's finds
  // it full. Expert 1: tokens 1 and 3 first, then token 0; token 4's finds it full.
  EXPECT_EQ(ints(plan.slot), (Ints{0, 2, 0, 2, 1, 1, 1, -1, 0, -1}));
  EXPECT_EQ(ints(plan.row_token), (Ints{0, 2, 1, 1, 3, 0, 4, 2}));
  EXPECT_EQ(plan.chosen, (std::vector<int64_t>{4, 4, 2}));
  EXPECT_EQ(plan.dropped_tokens, 0);
  EXPECT_EQ(plan.gate.to_vector()[7], 0);
}

TEST(Top2Router, ATokenIsDroppedWhenNeitherChoiceFits) {
  const RoutingPlan plan = make_router(config_of(3, 1, SecondPolicy::all))
                               ->assign(tokens_choosing({{0, 1}, {1, 0}, {0, 1}}));
  check_plan(plan);
  EXPECT_EQ(ints(plan.slot), (Ints{0, -1, 0, -1, -1, -1}));
  EXPECT_EQ(plan.dropped_tokens, 1);
}

TEST(Top2Router, PoliciesForTheSecondExpert) {
  // Second gates 0.375 and 0.1667.
  const RouterInput input = input_of(
      {std::log(.5), std::log(.3), std::log(.2), std::log(.75), std::log(.15), std::log(.1)}, 3);
  const auto second_slots = [&](SecondPolicy policy) {
    const RoutingPlan plan = make_router(config_of(3, 9, policy))->assign(input);
    check_plan(plan);
    return Ints{ints(plan.slot)[1], ints(plan.slot)[3]};
  };
  EXPECT_EQ(second_slots(SecondPolicy::all), (Ints{0, 1}));
  EXPECT_EQ(second_slots(SecondPolicy::none), (Ints{-1, -1}));
  EXPECT_EQ(second_slots(SecondPolicy::threshold), (Ints{0, -1}));
  EXPECT_EQ(second_slots(SecondPolicy::random)[0], 0);  // certain: 0.375 > 0.2
}

TEST(Top2Router, TheRandomPolicyKeepsInProportionToTheGate) {
  RouterConfig config = config_of(2, 1 << 20, SecondPolicy::random);
  config.max_group_size = 1 << 20;
  std::vector<double> logits;
  for (int n = 0; n < 20000; ++n) logits.insert(logits.end(), {std::log(.95), std::log(.05)});
  RouterInput input = input_of(logits, 2);
  input.key = rng_key(5, RngPurpose::routing);
  const RoutingPlan plan = make_router(config)->assign(input);
  EXPECT_NEAR(double(plan.kept[1]) / 20000, 0.05 / 0.2, 0.015);
}

TEST(Top2Router, BothProbabilitiesLearnFromOneKeptGate) {
  const auto router = make_router(config_of(3, 9, SecondPolicy::none));
  RouterInput input = input_of({std::log(.5), std::log(.3), std::log(.2)}, 3, DType::f64);
  const RoutingPlan plan = router->assign(input);
  Tensor d_p = Tensor::empty({1, 3}, DType::f64);
  // d_gate of the choice that was not kept is ignored.
  router->gate_backward(plan, input.probabilities, master_tensor({1, 2}, DType::f64, {1, 100}), d_p,
                        Accum::write);
  EXPECT_NEAR(d_p.to_vector()[0], 0.3 / 0.64, 1e-7);
  EXPECT_NEAR(d_p.to_vector()[1], -0.5 / 0.64, 1e-7);
  EXPECT_EQ(d_p.to_vector()[2], 0);
}

TEST(Top2Router, OneExpertNeverGetsATokenTwice) {
  RouterConfig config = config_of(1, 9, SecondPolicy::all);
  for (CapacityRule rule : {CapacityRule::constant, CapacityRule::unlimited}) {
    config.capacity_rule = rule;
    const RoutingPlan plan = make_router(config)->assign(input_of({1, 2, 3}, 1));
    check_plan(plan);
    EXPECT_EQ(plan.rows, 3);
    EXPECT_EQ(ints(plan.expert), (Ints{0, -1, 0, -1, 0, -1}));
  }
}

TEST(Top2Router, CountsOneOrBothChoicesInTheBalance) {
  RouterConfig config = config_of(3, 9, SecondPolicy::all);
  const RouterInput input = tokens_choosing({{0, 1}, {0, 2}});
  const auto counted = [&] {
    const auto router = make_router(config);
    return router->loss_terms(input, router->assign(input)).assigned;
  };
  EXPECT_EQ(counted(), (std::vector<double>{2, 0, 0}));
  config.count_all_choices = true;
  EXPECT_EQ(counted(), (std::vector<double>{2, 1, 1}));
}

}  // namespace
}  // namespace sw
