// Routing, losses and gradients of the paper's own gating functions: tests/golden/moe_mesh.json,
// made by Mesh TensorFlow 0.1.21.
#include <fstream>
#include <nlohmann/json.hpp>

#include "libswitch/moe/capacity.h"
#include "libswitch/moe/losses.h"
#include "tests/moe/routing_case.h"

namespace sw {
namespace {

using nlohmann::json;

const json& golden() {
  static const json file = json::parse(std::ifstream(SW_SOURCE_DIR "/tests/golden/moe_mesh.json"));
  return file;
}

RouterConfig config_of(const json& c) {
  RouterConfig config = RouterConfig::preset("paper");
  config.kind = c["gating"] == "top_2" ? RouterKind::top2 : router_kind_from(c["gating"]);
  config.experts = c["experts"];
  config.capacity_factor_train = config.capacity_factor_eval = c["capacity_factor"];
  config.min_capacity = c["min_capacity"];
  config.max_group_size = c["group_size"];
  config.second_train = config.second_eval = second_policy_from(c["second"]);
  config.ntlb_k = c["ntlb_k"];
  if (config.kind != RouterKind::ntlb) config.ntlb_k = 1;
  return config;
}

void expect_equal_case(const json& c, DType dtype) {
  SCOPED_TRACE(c["name"].get<std::string>() + " " + dtype_name(dtype));
  const std::unique_ptr<Router> router = make_router(config_of(c));
  RouterInput input = input_of(c["logits"], c["experts"], dtype);
  input.nonpadding = mask_of(c["nonpadding"]);
  input.training = c["train"];
  const RoutingPlan plan = router->assign(input);
  check_plan(plan);
  ASSERT_EQ(plan.groups, c["groups"]);
  ASSERT_EQ(plan.capacity, c["capacity"]);

  const std::vector<double> gate = plan.gate.to_vector();
  const std::vector<int32_t> expert = ints(plan.expert), slot = ints(plan.slot);
  const std::vector<double> weights = c["weights"];
  std::vector<double> d_gate(gate.size(), 0.0);
  double combined = 0;
  for (int64_t n = 0; n < plan.tokens; ++n) {
    std::vector<std::vector<double>> kept;
    for (int64_t i = n * plan.choices; i < (n + 1) * plan.choices; ++i) {
      if (slot[i] < 0) continue;
      kept.push_back({double(expert[i]), double(slot[i]), gate[i]});
      d_gate[i] = weights[n * plan.experts + expert[i]];
      combined += gate[i] * d_gate[i];
    }
    const json& expected = c["tokens"][n];
    ASSERT_EQ(kept.size(), expected.size()) << "token " << n;
    for (size_t i = 0; i < kept.size(); ++i) {
      EXPECT_EQ(kept[i][0], expected[i][0]) << "expert, token " << n;
      EXPECT_EQ(kept[i][1], expected[i][1]) << "slot, token " << n;
      EXPECT_NEAR(kept[i][2], expected[i][2], 4e-7) << "gate, token " << n;
    }
  }

  RouterLossConfig loss;
  loss.aux_coefficient = 1;
  loss.z_coefficient = c["train"] ? c["z"].get<double>() : 0;
  const RouterLossTerms terms = router->loss_terms(input, plan);
  const RouterLosses losses = router_losses({&terms, 1}, loss);
  EXPECT_NEAR(losses.total, c["loss"], 1e-6);

  Tensor d_p = Tensor::empty({plan.tokens, plan.experts}, dtype);
  Tensor d_log_z = Tensor::empty({plan.tokens}, dtype);
  router->gate_backward(plan, input.probabilities, master_tensor(plan.gate.shape(), dtype, d_gate),
                        d_p, Accum::write);
  router_losses_backward(losses.gradients[0], 1.0, input.log_z, input.nonpadding, d_p, d_log_z);
  const std::vector<double> d_logits = softmax_gradient(input.probabilities, d_p, d_log_z);
  const std::vector<double> expected = c["d_logits"];
  for (size_t i = 0; i < d_logits.size(); ++i) {
    EXPECT_NEAR(d_logits[i], expected[i], 1e-6) << "d_logits " << i;
  }
}

TEST(MeshGolden, RoutingLossesAndGradientsEqualTheReference) {
  ASSERT_EQ(golden()["cases"].size(), 14u);
  for (const json& c : golden()["cases"]) expect_equal_case(c, DType::f32);
}

TEST(MeshGolden, DoublePrecisionDecidesTheSame) {
  for (const json& c : golden()["cases"]) {
    // What underflows in float does not in double.
    if (c["name"].get<std::string>().find("Underflow") == std::string::npos) {
      expect_equal_case(c, DType::f64);
    }
  }
}

TEST(MeshGolden, GroupsAreCutAsInTheReference) {
  for (const json& c : golden()["groups"]) {
    const int64_t tokens = c[0], largest = c[1], ranks = c[2], groups = c[3], size = c[4];
    const GroupSplit split = split_into_groups(tokens / ranks, ranks, largest);
    EXPECT_EQ(split.groups * ranks, groups) << c;
    EXPECT_EQ(split.size, size) << c;
  }
}

}  // namespace
}  // namespace sw
