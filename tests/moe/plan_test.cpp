// What holds for every plan: of every router, on random inputs and on plans made by hand.
#include "libswitch/moe/plan.h"

#include <cstring>
#include <set>

#include "libswitch/base/parallel.h"
#include "libswitch/moe/statistics.h"
#include "tests/moe/routing_case.h"

namespace sw {
namespace {

RoutingPlan plan_of(int64_t experts, int64_t choices, int64_t groups, int64_t capacity,
                    const std::vector<int32_t>& expert, const std::vector<int32_t>& slot) {
  RoutingPlan plan;
  plan.tokens = static_cast<int64_t>(expert.size()) / choices;
  plan.experts = experts;
  plan.choices = choices;
  plan.groups = groups;
  plan.group_size = plan.tokens / groups;
  plan.capacity = capacity;
  plan.expert = Tensor::from({plan.tokens, choices}, expert);
  plan.slot = Tensor::from({plan.tokens, choices}, slot);
  return plan;
}

TEST(Plan, RowsFollowGroupAndSlotWhateverTheTokensOrder) {
  RoutingPlan plan = plan_of(2, 1, 2, 3, {0, 1, 0, 0, 0, 1}, {2, 0, 0, 1, 0, 2});
  build_rows(plan);
  EXPECT_EQ(ints(plan.row_token), (std::vector<int32_t>{2, 0, 4, 3, 1, 5}));
  EXPECT_EQ(ints(plan.row_of), (std::vector<int32_t>{1, 4, 0, 3, 2, 5}));
  EXPECT_EQ(ints(plan.offsets), (std::vector<int32_t>{0, 4, 6}));
}

TEST(Plan, InconsistentPlansAreRefused) {
  const auto refused = [](RoutingPlan plan) {
    return thrown_kind([&] { build_rows(plan); }) == ErrorKind::internal;
  };
  EXPECT_TRUE(refused(plan_of(2, 1, 1, 3, {0, 0}, {1, 1})));   // one slot for two
  EXPECT_TRUE(refused(plan_of(2, 1, 1, 3, {0, 0}, {1, 3})));   // slot beyond the capacity
  EXPECT_TRUE(refused(plan_of(2, 1, 1, 3, {0, 2}, {0, 0})));   // no such expert
  EXPECT_TRUE(refused(plan_of(2, 1, 1, 3, {0, -1}, {0, 0})));  // a slot without an expert
  RoutingPlan groups = plan_of(2, 1, 1, 3, {0, 1}, {0, 0});
  groups.groups = 3;
  EXPECT_TRUE(refused(groups));
  RoutingPlan dtype = plan_of(2, 1, 1, 3, {0, 1}, {0, 0});
  dtype.slot = Tensor::zeros({2, 1}, DType::f32);
  EXPECT_TRUE(refused(dtype));
}

struct Setting {
  RouterConfig config;
  RouterInput input;
};

// Everything at random: kind, sizes, groups, capacity, padding.
Setting random_setting(uint64_t seed) {
  RngStream rng(rng_key(seed, RngPurpose::test, "setting"));
  Setting s;
  s.config.kind = std::array{RouterKind::switch_top1, RouterKind::top2, RouterKind::ntlb}[seed % 3];
  const int64_t experts = 1 + static_cast<int64_t>(rng.below(12));
  s.config.experts = experts;
  s.config.capacity_rule =
      std::array{CapacityRule::floor_bounded, CapacityRule::round_half_even, CapacityRule::constant,
                 CapacityRule::unlimited}[rng.below(4)];
  s.config.capacity_factor_train = 0.25 + 2 * rng.uniform();
  s.config.min_capacity = static_cast<int64_t>(rng.below(4));
  s.config.expert_capacity = static_cast<int64_t>(rng.below(6));
  s.config.max_group_size = 1 + static_cast<int64_t>(rng.below(40));
  s.config.group_rule = rng.below(3) == 0 ? GroupRule::row : GroupRule::batch;
  s.config.padding_rule = std::array{PaddingRule::counted_not_dispatched, PaddingRule::excluded,
                                     PaddingRule::routed}[rng.below(3)];
  s.config.second_train = std::array{SecondPolicy::all, SecondPolicy::none, SecondPolicy::threshold,
                                     SecondPolicy::random}[rng.below(4)];
  s.config.ntlb_k = 1 + static_cast<int64_t>(rng.below(experts));
  const int64_t rows = 1 + static_cast<int64_t>(rng.below(4));
  const int64_t tokens = rows * (1 + static_cast<int64_t>(rng.below(30)));
  std::vector<double> logits = random_logits(tokens, experts, seed);
  const double scale = std::array{0.0, 1.0, 60.0}[rng.below(3)];  // ties, usual, underflow
  for (double& value : logits) value *= scale;
  s.input = input_of(logits, experts);
  std::vector<uint8_t> real(static_cast<size_t>(tokens));
  for (uint8_t& value : real) value = rng.below(4) != 0;
  if (rng.below(2) == 0) s.input.nonpadding = mask_of(real);
  s.input.batch_rows = rows;
  s.input.training = true;
  s.input.key = rng_key(seed, RngPurpose::routing);
  return s;
}

TEST(Plan, OfEveryRouterIsConsistent) {
  for (uint64_t seed = 0; seed < 1500; ++seed) {
    SCOPED_TRACE(seed);
    const Setting s = random_setting(seed);
    const auto router = make_router(s.config);
    const RoutingPlan plan = router->assign(s.input);
    ASSERT_NO_THROW(check_plan(plan));

    const std::vector<int32_t> expert = ints(plan.expert), slot = ints(plan.slot),
                               row_of = ints(plan.row_of), row_token = ints(plan.row_token),
                               offsets = ints(plan.offsets);
    const std::vector<double> gate = plan.gate.to_vector();
    std::set<std::array<int64_t, 3>> taken;
    std::vector<int64_t> kept(static_cast<size_t>(plan.experts), 0);
    int64_t routed = 0, dropped = 0;
    for (int64_t n = 0; n < plan.tokens; ++n) {
      const bool padding = s.config.padding_rule != PaddingRule::routed &&
                           s.input.nonpadding.defined() &&
                           s.input.nonpadding.data<uint8_t>()[n] == 0;
      bool any = false;
      double sum = 0;
      for (int64_t i = n * plan.choices; i < (n + 1) * plan.choices; ++i) {
        sum += gate[i];
        EXPECT_EQ(slot[i] >= 0, row_of[i] >= 0);
        if (slot[i] < 0) continue;
        EXPECT_FALSE(padding);
        any = true;
        EXPECT_LT(slot[i], plan.capacity);
        EXPECT_TRUE(taken.insert({n / plan.group_size, expert[i], slot[i]}).second);
        EXPECT_EQ(row_token[row_of[i]], n);
        EXPECT_GE(row_of[i], offsets[expert[i]]);
        EXPECT_LT(row_of[i], offsets[expert[i] + 1]);
        ++kept[expert[i]];
      }
      EXPECT_LE(sum, 1 + 1e-6);
      routed += !padding;
      dropped += !padding && !any;
    }
    EXPECT_EQ(kept, plan.kept);
    EXPECT_EQ(routed, plan.routed_tokens);
    EXPECT_EQ(dropped, plan.dropped_tokens);
    // Rows of an expert lie in the order of group and slot.
    for (int64_t e = 0; e < plan.experts; ++e) {
      std::array<int64_t, 2> before{-1, -1};
      for (int32_t r = offsets[e]; r < offsets[e + 1]; ++r) {
        for (int64_t c = 0; c < plan.choices; ++c) {
          const int64_t i = row_token[r] * plan.choices + c;
          if (row_of[i] != r) continue;
          const std::array<int64_t, 2> place{row_token[r] / plan.group_size, slot[i]};
          EXPECT_LT(before, place);
          before = place;
        }
      }
    }
    // The balance loss never falls below what f and P allow, and is finite.
    const RouterLossTerms terms = router->loss_terms(s.input, plan);
    RouterLossConfig loss;
    loss.z_coefficient = 1;
    const RouterLosses losses = router_losses({&terms, 1}, loss);
    EXPECT_TRUE(std::isfinite(losses.total));
    EXPECT_LE(losses.aux, static_cast<double>(plan.experts) * plan.choices + 1e-9);
    if (HasFailure()) break;
  }
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST(Plan, BitsDoNotDependOnTheNumberOfThreads) {
  const int before = num_threads();
  for (RouterKind kind : {RouterKind::switch_top1, RouterKind::top2, RouterKind::ntlb}) {
    RouterConfig config;
    config.kind = kind;
    config.experts = 24;
    config.max_group_size = 1300;
    config.ntlb_k = 3;
    const auto router = make_router(config);
    RouterInput input = input_of(random_logits(6000, 24, 8), 24);
    input.training = true;
    const auto run = [&](int threads) {
      set_threads(threads);
      const RoutingPlan plan = router->assign(input);
      const RouterLossTerms terms = router->loss_terms(input, plan);
      RouterLossConfig loss;
      loss.z_coefficient = 0.1;
      const RouterLosses losses = router_losses({&terms, 1}, loss);
      Tensor d_p = Tensor::empty({6000, 24}, DType::f32), d_z = Tensor::empty({6000}, DType::f32);
      router->gate_backward(plan, input.probabilities, plan.gate, d_p, Accum::write);
      router_losses_backward(losses.gradients[0], 1, input.log_z, Tensor(), d_p, d_z);
      const RouterStatistics s = router_statistics("", input, plan, config.padding_rule);
      return std::tuple(plan, losses, d_p, d_z, s);
    };
    const auto [plan_1, losses_1, d_p_1, d_z_1, s_1] = run(1);
    for (int threads : {2, 3}) {
      const auto [plan, losses, d_p, d_z, s] = run(threads);
      EXPECT_TRUE(same_bits(plan.gate, plan_1.gate));
      EXPECT_TRUE(same_bits(plan.row_of, plan_1.row_of));
      EXPECT_TRUE(same_bits(plan.row_token, plan_1.row_token));
      EXPECT_EQ(losses.total, losses_1.total);
      EXPECT_TRUE(same_bits(d_p, d_p_1));
      EXPECT_TRUE(same_bits(d_z, d_z_1));
      EXPECT_EQ(s.entropy_sum, s_1.entropy_sum);
      EXPECT_EQ(s.probability, s_1.probability);
    }
  }
  set_threads(before);
}

}  // namespace
}  // namespace sw
