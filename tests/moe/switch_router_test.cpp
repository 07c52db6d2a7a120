#include "tests/moe/routing_case.h"

namespace sw {
namespace {

RouterConfig constant_capacity(int64_t experts, int64_t capacity) {
  RouterConfig config;
  config.experts = experts;
  config.capacity_rule = CapacityRule::constant;
  config.expert_capacity = capacity;
  return config;
}

RouterInput with_mask(RouterInput input, const std::vector<uint8_t>& real) {
  input.nonpadding = mask_of(real);
  return input;
}

using Ints = std::vector<int32_t>;

TEST(SwitchRouter, GivesSlotsInSequenceOrderAndDropsTheRest) {
  const auto router = make_router(constant_capacity(3, 2));
  const RoutingPlan plan = router->assign(input_choosing({2, 0, 2, 2, 1, 0, 2}, 3));
  check_plan(plan);
  EXPECT_EQ(ints(plan.expert), (Ints{2, 0, 2, 2, 1, 0, 2}));
  EXPECT_EQ(ints(plan.slot), (Ints{0, 0, 1, -1, 0, 1, -1}));
  EXPECT_EQ(ints(plan.row_of), (Ints{3, 0, 4, -1, 2, 1, -1}));
  EXPECT_EQ(ints(plan.row_token), (Ints{1, 5, 4, 0, 2}));
  EXPECT_EQ(ints(plan.offsets), (Ints{0, 2, 3, 5}));
  EXPECT_EQ(plan.chosen, (std::vector<int64_t>{2, 1, 4}));
  EXPECT_EQ(plan.kept, (std::vector<int64_t>{2, 1, 2}));
  EXPECT_EQ(plan.routed_tokens, 7);
  EXPECT_EQ(plan.dropped_tokens, 2);
  const std::vector<double> gate = plan.gate.to_vector();
  const double p = std::exp(3.0) / (std::exp(3.0) + 2);
  for (int64_t n = 0; n < 7; ++n) EXPECT_NEAR(gate[n], n == 3 || n == 6 ? 0 : p, 1e-6) << n;
}

TEST(SwitchRouter, CapacityBindsGroupByGroup) {
  RouterConfig config = constant_capacity(2, 1);
  config.max_group_size = 3;
  const RoutingPlan plan = make_router(config)->assign(input_choosing({0, 0, 1, 0, 1, 1}, 2));
  check_plan(plan);
  EXPECT_EQ(plan.groups, 2);
  EXPECT_EQ(ints(plan.slot), (Ints{0, -1, 0, 0, 0, -1}));
  EXPECT_EQ(ints(plan.row_token), (Ints{0, 3, 2, 4}));  // expert by expert, groups in order
}

TEST(SwitchRouter, RowsOfTheBatchAreGroupsInHuggingFacesRule) {
  RouterConfig config = RouterConfig::preset("hf");
  config.experts = 4;
  config.expert_capacity = 3;
  // The encoder's first sparse layer of the oracle model in transformers 4.57.6: raw choices and,
  // as
  // '-', what was dropped.
  const std::string raw = "211211313331212222111222", kept = "21121-3-33--2122--11----";
  std::vector<int> choices;
  for (char c : raw) choices.push_back(c - '0');
  RouterInput input = input_choosing(choices, 4);
  input.batch_rows = 2;
  const RoutingPlan plan = make_router(config)->assign(input);
  check_plan(plan);
  EXPECT_EQ(plan.groups, 2);
  std::string printed;
  for (int64_t n = 0; n < plan.tokens; ++n) {
    printed += ints(plan.slot)[n] < 0 ? '-' : static_cast<char>('0' + ints(plan.expert)[n]);
  }
  EXPECT_EQ(printed, kept);
}

TEST(SwitchRouter, TiesGoToTheLowestIndex) {
  const RoutingPlan plan =
      make_router(constant_capacity(3, 9))->assign(input_of({0, 0, 0, 1, 2, 2}, 3));
  EXPECT_EQ(ints(plan.expert), (Ints{0, 1}));
}

TEST(SwitchRouter, PaddingTakesNoSlotUnlessItIsRouted) {
  RouterConfig config = constant_capacity(2, 2);
  const RouterInput input = with_mask(input_choosing({0, 0, 0, 1}, 2), {0, 1, 1, 0});
  for (PaddingRule rule : {PaddingRule::counted_not_dispatched, PaddingRule::excluded}) {
    config.padding_rule = rule;
    const RoutingPlan plan = make_router(config)->assign(input);
    check_plan(plan);
    EXPECT_EQ(ints(plan.expert), (Ints{-1, 0, 0, -1}));
    EXPECT_EQ(ints(plan.slot), (Ints{-1, 0, 1, -1}));
    EXPECT_EQ(plan.routed_tokens, 2);
    EXPECT_EQ(plan.dropped_tokens, 0);
  }
  config.padding_rule = PaddingRule::routed;
  const RoutingPlan plan = make_router(config)->assign(input);
  EXPECT_EQ(ints(plan.slot), (Ints{0, 1, -1, 0}));
  EXPECT_EQ(plan.routed_tokens, 4);
}

TEST(SwitchRouter, AShardOfPaddingAloneHasNoRowsAndNoLoss) {
  const auto router = make_router(constant_capacity(2, 2));
  const RouterInput input = with_mask(input_choosing({0, 0, 1}, 2), {0, 0, 0});
  const RoutingPlan plan = router->assign(input);
  check_plan(plan);
  EXPECT_EQ(plan.rows, 0);
  const RouterLossTerms terms = router->loss_terms(input, plan);
  RouterLossConfig loss;
  loss.z_coefficient = 1;
  EXPECT_EQ(router_losses({&terms, 1}, loss).total, 0);
}

TEST(SwitchRouter, CapacityZeroDropsEveryToken) {
  const RoutingPlan plan = make_router(constant_capacity(2, 0))->assign(input_choosing({0, 1}, 2));
  check_plan(plan);
  EXPECT_EQ(plan.rows, 0);
  EXPECT_EQ(plan.dropped_tokens, 2);
}

TEST(SwitchRouter, UnlimitedCapacityDropsNothing) {
  RouterConfig config = constant_capacity(4, 1);
  config.capacity_rule = CapacityRule::unlimited;
  const RoutingPlan plan = make_router(config)->assign(input_choosing({3, 3, 3, 3, 3}, 4));
  check_plan(plan);
  EXPECT_EQ(plan.rows, 5);
  EXPECT_EQ(plan.kept, (std::vector<int64_t>{0, 0, 0, 5}));
}

TEST(SwitchRouter, OneExpertTakesEverythingWithGateOne) {
  const RoutingPlan plan = make_router(constant_capacity(1, 9))->assign(input_of({5, -2, 0}, 1));
  check_plan(plan);
  EXPECT_EQ(plan.gate.to_vector(), (std::vector<double>{1, 1, 1}));
  EXPECT_EQ(plan.rows, 3);
}

TEST(SwitchRouter, AKeptGateOfADroppedTokenLearns) {
  RouterConfig config = constant_capacity(2, 1);
  config.dropped_gate = DroppedGate::kept;
  const auto router = make_router(config);
  const RouterInput input = input_choosing({0, 0}, 2);
  const RoutingPlan plan = router->assign(input);
  check_plan(plan);
  EXPECT_EQ(ints(plan.slot), (Ints{0, -1}));
  EXPECT_EQ(plan.gate.to_vector()[1], plan.gate.to_vector()[0]);
  Tensor d_p = Tensor::empty({2, 2}, DType::f32);
  router->gate_backward(plan, input.probabilities, master_tensor({2, 1}, DType::f32, {2, 3}), d_p,
                        Accum::write);
  EXPECT_EQ(d_p.to_vector(), (std::vector<double>{2, 0, 3, 0}));
}

TEST(SwitchRouter, GateGradientsReachTheChosenProbabilityAndAddWhenAsked) {
  const auto router = make_router(constant_capacity(2, 1));
  const RouterInput input = input_choosing({1, 1, 0}, 2);
  const RoutingPlan plan = router->assign(input);
  Tensor d_p = Tensor::zeros({3, 2}, DType::f32);
  const Tensor d_gate = master_tensor({3, 1}, DType::f32, {2, 3, 5});
  router->gate_backward(plan, input.probabilities, d_gate, d_p, Accum::write);
  EXPECT_EQ(d_p.to_vector(), (std::vector<double>{0, 2, 0, 0, 5, 0}));  // the second was dropped
  router->gate_backward(plan, input.probabilities, d_gate, d_p, Accum::add);
  EXPECT_EQ(d_p.to_vector(), (std::vector<double>{0, 4, 0, 0, 10, 0}));
}

TEST(SwitchRouter, Bf16GatesAreRoundedBeforeTheChoice) {
  RouterConfig config = constant_capacity(2, 9);
  RouterInput input = input_of({0, 0}, 2);
  input.probabilities = master_tensor({1, 2}, DType::f32, {0.4999, 0.5001});  // one bf16 value
  EXPECT_EQ(ints(make_router(config)->assign(input).expert), (Ints{1}));
  config.bf16_gate = true;
  const RoutingPlan plan = make_router(config)->assign(input);
  EXPECT_EQ(ints(plan.expert), (Ints{0}));
  EXPECT_EQ(plan.gate.to_vector()[0], 0.5);
}

TEST(SwitchRouter, SamplesInProportionToTheProbabilitiesByGlobalIndex) {
  RouterConfig config;
  config.experts = 3;
  config.capacity_rule = CapacityRule::unlimited;
  config.selection = SelectionPolicy::sample;
  const auto router = make_router(config);
  const int64_t tokens = 30000;
  std::vector<double> logits;
  for (int64_t n = 0; n < tokens; ++n) logits.insert(logits.end(), {0, std::log(2), std::log(5)});
  RouterInput input = input_of(logits, 3);
  input.key = rng_key(3, RngPurpose::routing, 1, 2);
  const RoutingPlan plan = router->assign(input);
  // Standard deviation of a share of 30,000 draws: at most 0.003.
  EXPECT_NEAR(double(plan.chosen[0]) / tokens, 1.0 / 8, 0.012);
  EXPECT_NEAR(double(plan.chosen[1]) / tokens, 2.0 / 8, 0.012);
  EXPECT_NEAR(double(plan.chosen[2]) / tokens, 5.0 / 8, 0.012);
  const std::vector<double> gate = plan.gate.to_vector(), untempered{0.125, 0.25, 0.625};
  for (int64_t n = 0; n < 20; ++n) EXPECT_NEAR(gate[n], untempered[ints(plan.expert)[n]], 1e-6);

  // The second half of the batch, routed as a shard of its own, chooses as before.
  RouterInput half = input;
  half.probabilities = input.probabilities.slice(tokens / 2, tokens);
  half.log_z = input.log_z.slice(tokens / 2, tokens);
  half.first_token = tokens / 2;
  half.shards = 2;
  const Ints all = ints(plan.expert), part = ints(router->assign(half).expert);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + tokens / 2));

  config.temperature = 0;  // greedy
  EXPECT_EQ(make_router(config)->assign(input).chosen[2], tokens);
}

}  // namespace
}  // namespace sw
