// Routing as ops, every router: gradients through gates and losses, dispatch and combine as each
// other's transpose.
#include "libswitch/moe/route.h"

#include <gtest/gtest.h>

#include "libswitch/ops/linear.h"
#include "tests/support/kernel_case.h"
#include "tests/support/model_ranks.h"
#include "tests/support/op_case.h"

namespace sw::test {
namespace {

using Vars = std::vector<Var>;

// A whole sparse layer of one matrix per expert: jittered logits, gates, dispatch, experts,
// combine.
Vars sparse_layer(Context& c, const Router& router, const Vars& in, const Var& dropped) {
  const Var x = ops::router_input(c, in[0], 0.05, 3, 0);
  const Var logits = ops::linear(c, x, in[1]);
  RouterInput input;
  input.training = true;
  const ops::Routed routed = ops::route(c, router, logits, input);
  const Var rows = ops::dispatch(c, in[0], routed.routing->plan);
  Var hidden = ops::expert_linear(c, rows, in[2], routed.routing->plan.offsets);
  hidden = ops::expert_dropout(c, hidden, 0.25, 5, *routed.routing, 0);
  return {ops::combine(c, hidden, routed.gate, routed.routing->plan, dropped)};
}

OpCase layer_case(const char* name, const Router& router, bool keep_dropped) {
  return {
      name,
      // Router weights far apart: no draw lies near a tie, so no difference quotient crosses one.
      {{{12, 9}},
       {.shape = {9, 4}, .master = true, .weight = true, .low = -2, .high = 2},
       {.shape = {4, 9, 5}, .weight = true}},
      [&router, keep_dropped](Context& c, const Vars& in) {
        return sparse_layer(c, router, in, keep_dropped ? in[0] : Var());
      },
      9,
      2,
      24};
}

RouterConfig config_of(RouterKind kind) {
  RouterConfig config;
  config.kind = kind;
  config.experts = 4;
  config.min_capacity = 1;
  config.capacity_factor_train = 1.0;
  config.second_train = SecondPolicy::all;
  config.ntlb_k = 2;
  return config;
}

TEST(RouteOps, ExpertDropoutOfAPartOfTheHiddenColumnsHasTheMaskOfTheWhole) {
  ops::Routing routing;
  RoutingPlan& plan = routing.plan;
  plan.tokens = 5, plan.choices = 2, plan.rows = 4;
  plan.row_of = Tensor::from({5, 2}, std::vector<int32_t>{1, -1, -1, 0, -1, -1, 3, -1, -1, 2});
  const Tensor hidden = random_tensor({4, 12}, DType::f32, 1);
  const auto drop = [&](Context& context, const Tensor& x) {
    const Var in = Var::leaf(x);
    const Var out = ops::expert_dropout(context, in, 0.4, 7, routing, 20);
    out.slot()->adopt(context.stream, x);
    context.tape->backward();
    return std::pair{out.value(), in.slot()->gradient()};
  };
  std::pair<Tensor, Tensor> whole;
  on_model_ranks(1, [&](Context& context, MeshPart) { whole = drop(context, hidden); });
  for (const int64_t ranks : {2, 4}) {
    on_model_ranks(ranks, [&](Context& context, MeshPart part) {
      const auto got = drop(context, columns_of(hidden, part));
      expect_same_bits(got.first, columns_of(whole.first, part), "output");
      expect_same_bits(got.second, columns_of(whole.second, part), "gradient");
    });
  }
}

TEST(RouteOps, SwitchLayerWithDrops) {
  const auto router = make_router(config_of(RouterKind::switch_top1));
  check_op(layer_case("switch", *router, false));
}

TEST(RouteOps, TopTwoLayerWithDrops) {
  const auto router = make_router(config_of(RouterKind::top2));
  check_op(layer_case("top2", *router, false));
}

TEST(RouteOps, NoTokenLeftBehindLayer) {
  const auto router = make_router(config_of(RouterKind::ntlb));
  check_op(layer_case("ntlb", *router, false));
}

TEST(RouteOps, CapacityForNobodyGivesZeros) {
  RouterConfig config = config_of(RouterKind::switch_top1);
  config.capacity_rule = CapacityRule::constant;
  config.expert_capacity = 0;
  const auto router = make_router(config);
  Context context;
  const Vars in = {Var(random_tensor({6, 9}, DType::f32, 1)),
                   Var(random_tensor({9, 4}, DType::f32, 2)),
                   Var(random_tensor({4, 9, 9}, DType::f32, 3))};
  for (const double y : sparse_layer(context, *router, in, Var())[0].value().to_vector()) {
    EXPECT_EQ(y, 0);
  }
}

}  // namespace
}  // namespace sw::test
