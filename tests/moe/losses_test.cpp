#include "libswitch/moe/losses.h"

#include "tests/moe/routing_case.h"

namespace sw {
namespace {

// Terms of one group with the given f and P.
RouterLossTerms terms_of(const std::vector<double>& f,
                         const std::vector<double>& mean_probability) {
  RouterLossTerms terms;
  terms.groups = 1;
  terms.experts = static_cast<int64_t>(f.size());
  terms.assigned = f;
  terms.probability = mean_probability;
  terms.weight = {1};
  return terms;
}

double aux_of(const RouterLossTerms& terms) {
  return router_losses({&terms, 1}, RouterLossConfig{}).aux;
}

TEST(RouterLosses, BalanceIsOneWhenUniformAndTheExpertsWhenCollapsed) {
  const std::vector<double> even(4, 0.25), skewed{.4, .4, .1, .1};
  EXPECT_DOUBLE_EQ(aux_of(terms_of(even, even)), 1);
  EXPECT_DOUBLE_EQ(aux_of(terms_of(even, skewed)), 1);  // uniform f with any P
  EXPECT_DOUBLE_EQ(aux_of(terms_of({1, 0, 0, 0}, {1, 0, 0, 0})), 4);
  EXPECT_DOUBLE_EQ(aux_of(terms_of({.5, .5, 0, 0}, skewed)), 1.6);
}

TEST(RouterLosses, EqualsHuggingFacesLoadBalancingTest) {
  const std::vector<double> p{0.35490513, 0.60419905, 0.4275843,  0.23061597, 0.32985854,
                              0.43953657, 0.25099766, 0.27730572, 0.7678207,  0.71474564};
  RouterLossTerms terms = terms_of({3, 2}, {0, 0});  // experts 0, 1, 1, 0, 0
  for (int n = 0; n < 5; ++n) {
    for (int e = 0; e < 2; ++e) terms.probability[e] += p[2 * n + e];
  }
  terms.assigned_divisor = terms.probability_divisor = 5;
  EXPECT_NEAR(aux_of(terms), 0.8741045, 5e-6);
}

TEST(RouterLosses, EqualsHuggingFacesZLossTest) {
  const std::vector<double> logits{
      -4.2124424,  3.891939,   -3.6481273,  1.8849981,   0.32625437, 2.918651,   0.84758997,
      -4.556842,   -3.32062,   4.6977115,   -0.15439987, 0.44086337, 3.4467149,  4.3436565,
      -4.7224274,  -4.264637,  -2.224406,   -2.5318158,  -1.3832569, 1.1891162,  -2.320062,
      -0.44705987, 4.289819,   -0.00662684, 0.99470854,  -0.6992364, 0.25503993, 4.2952085,
      3.5937333,   -3.2408535, -4.298278,   4.426601,    0.7669008,  2.6588762,  2.4505413,
      4.6051874,   0.23330331, -3.0845237,  0.6262374,   -2.9865491, 0.7595146,  -2.1099675,
      -4.155346,   -2.8326452, 2.3771453,   1.004138,    -3.1781673, 0.7581556};
  RouterConfig config = RouterConfig::preset("hf");
  config.experts = 4;
  const auto router = make_router(config);
  RouterInput input = input_of(logits, 4);
  input.batch_rows = 2;
  const RouterLossTerms terms = router->loss_terms(input, router->assign(input));
  RouterLossConfig loss;
  loss.rule = LossRule::concat_layers;
  EXPECT_NEAR(router_losses({&terms, 1}, loss).z, 13.786719, 2e-5);
}

TEST(RouterLosses, EqualsHuggingFacesRouterTest) {
  const double x[6][4] = {{0.6433916, 0.18188512, 0.02240455, 0.563781},
                          {0.5526401, 0.0958724, 0.34253013, 0.03644359},
                          {0.08744538, 0.7909105, 0.35205448, 0.53364205},
                          {0.02900076, 0.4168595, 0.5802449, 0.91486526},
                          {0.27414513, 0.14991808, 0.9383501, 0.5209162},
                          {0.51207185, 0.90618336, 0.7309413, 0.95533276}};
  const double w[4][2] = {{0.02008116, 0.00620062},
                          {-0.00811031, -0.00031623},
                          {-0.03542127, 0.02703803},
                          {0.02335377, -0.02971946}};
  std::vector<double> logits;
  for (const auto& token : x) {
    for (int e = 0; e < 2; ++e) {
      double sum = 0;
      for (int d = 0; d < 4; ++d) sum += token[d] * w[d][e];
      logits.push_back(sum);
    }
  }
  RouterConfig config = RouterConfig::preset("hf");
  config.experts = 2;
  config.expert_capacity = 4;
  const auto router = make_router(config);
  RouterInput input = input_of(logits, 2);
  input.batch_rows = 2;
  const RoutingPlan plan = router->assign(input);
  EXPECT_EQ(ints(plan.expert), (std::vector<int32_t>{0, 1, 0, 0, 1, 0}));
  const double gates[] = {0.5090078, 0.5031341, 0.5003456, 0.5023667, 0.5070808, 0.5012733};
  for (int n = 0; n < 6; ++n) EXPECT_NEAR(plan.gate.to_vector()[n], gates[n], 1e-6);
  const RouterLossTerms terms = router->loss_terms(input, plan);
  RouterLossConfig loss;
  loss.rule = LossRule::concat_layers;
  const RouterLosses losses = router_losses({&terms, 1}, loss);
  EXPECT_NEAR(losses.z, 0.4789799, 1e-6);
  EXPECT_NEAR(losses.aux, 1.000308, 1e-6);
}

TEST(RouterLosses, DroppedTokensCountOnExpertZeroOnlyWhereHuggingFaceDoes) {
  RouterConfig config = RouterConfig::preset("hf");
  config.experts = 3;
  config.expert_capacity = 1;
  const RouterInput input = input_choosing({2, 2, 1, 2}, 3);
  const auto counted = [&] {
    const auto router = make_router(config);
    return router->loss_terms(input, router->assign(input)).assigned;
  };
  EXPECT_EQ(counted(), (std::vector<double>{2, 1, 1}));
  config.dropped_as_expert_0 = false;
  EXPECT_EQ(counted(), (std::vector<double>{0, 1, 3}));
}

TEST(RouterLosses, PaddingCountsByRule) {
  RouterConfig config;
  config.experts = 2;
  RouterInput input = input_choosing({0, 1, 1, 0}, 2);
  input.nonpadding = mask_of({1, 1, 1, 0});
  const auto terms = [&](RouterKind kind, PaddingRule rule) {
    config.kind = kind;
    config.padding_rule = rule;
    config.ntlb_k = 1;
    const auto router = make_router(config);
    return router->loss_terms(input, router->assign(input));
  };
  const RouterLossTerms counted =
      terms(RouterKind::switch_top1, PaddingRule::counted_not_dispatched);
  EXPECT_EQ(counted.assigned, (std::vector<double>{2, 2}));
  EXPECT_EQ(counted.weight, (std::vector<double>{0.75}));
  EXPECT_EQ(counted.z_divisor, 3);
  const RouterLossTerms excluded = terms(RouterKind::switch_top1, PaddingRule::excluded);
  EXPECT_EQ(excluded.assigned, (std::vector<double>{1, 2}));
  EXPECT_EQ(excluded.weight, (std::vector<double>{1}));
  EXPECT_EQ(excluded.z_divisor, 4);
  const RouterLossTerms second = terms(RouterKind::top2, PaddingRule::counted_not_dispatched);
  EXPECT_EQ(second.assigned, (std::vector<double>{1, 2}));
  EXPECT_EQ(second.weight, (std::vector<double>{1}));
  const RouterLossTerms all = terms(RouterKind::ntlb, PaddingRule::routed);
  EXPECT_EQ(all.assigned, (std::vector<double>{2, 2}));
  EXPECT_DOUBLE_EQ(counted.z_sum, excluded.z_sum);
  EXPECT_GT(all.z_sum, counted.z_sum);
}

TEST(RouterLosses, LayersAreSummedAveragedOrJoined) {
  // Two layers whose imbalances cancel when joined.
  const std::vector<RouterLossTerms> layers{terms_of({1, 0}, {1, 0}), terms_of({0, 1}, {0, 1})};
  RouterLossConfig config;
  config.rule = LossRule::sum_layers;
  EXPECT_DOUBLE_EQ(router_losses(layers, config).aux, 4);
  config.rule = LossRule::mean_layers;
  EXPECT_DOUBLE_EQ(router_losses(layers, config).aux, 2);
  config.layers = 4;
  EXPECT_DOUBLE_EQ(router_losses(layers, config).aux, 1);
  config.rule = LossRule::concat_layers;
  const RouterLosses joined = router_losses(layers, config);
  EXPECT_DOUBLE_EQ(joined.aux, 1);
  EXPECT_EQ(joined.layer_aux, (std::vector<double>{2, 2}));
  EXPECT_EQ(router_losses({}, config).total, 0);
}

TEST(RouterLosses, LayersOfDifferentGroupsCannotBeJoined) {
  std::vector<RouterLossTerms> layers{terms_of({1, 0}, {1, 0}), terms_of({1, 0, 0}, {1, 0, 0})};
  RouterLossConfig config;
  config.rule = LossRule::concat_layers;
  EXPECT_EQ(thrown_kind([&] { router_losses(layers, config); }), ErrorKind::internal);
  layers[0].weight.clear();
  EXPECT_EQ(thrown_kind([&] { router_losses(layers, config); }), ErrorKind::internal);
}

TEST(RouterLosses, SharesOfShardsAddUpToTheBatch) {
  RouterConfig config;
  config.experts = 4;
  config.max_group_size = 8;
  const auto router = make_router(config);
  const int64_t tokens = 48;
  const std::vector<double> logits = random_logits(tokens, 4, 9);
  std::vector<uint8_t> real(tokens, 1);
  for (int n : {3, 4, 5, 30, 47}) real[n] = 0;
  RouterLossConfig loss;
  loss.z_coefficient = 0.1;
  const auto losses_of = [&](int64_t shards) {
    RouterLosses sum;
    const int64_t part = tokens / shards;
    for (int64_t s = 0; s < shards; ++s) {
      RouterInput input = input_of(
          {logits.begin() + s * part * 4, logits.begin() + (s + 1) * part * 4}, 4, DType::f64);
      input.nonpadding = mask_of({real.begin() + s * part, real.begin() + (s + 1) * part});
      input.shards = shards;
      input.nonpadding_total = tokens - 5;
      const RouterLossTerms terms = router->loss_terms(input, router->assign(input));
      const RouterLosses one = router_losses({&terms, 1}, loss);
      sum.aux += one.aux;
      sum.z += one.z;
      sum.total += one.total;
    }
    return sum;
  };
  const RouterLosses whole = losses_of(1);
  for (int64_t shards : {2, 3}) {
    const RouterLosses parts = losses_of(shards);
    EXPECT_NEAR(parts.aux, whole.aux, 1e-14);
    EXPECT_NEAR(parts.z, whole.z, 1e-13);
    EXPECT_NEAR(parts.total, whole.total, 1e-14);
  }
}

// The derivative of gates and losses of two layers by the logits, against central differences.
void check_gradient(RouterConfig config, LossRule rule) {
  SCOPED_TRACE(std::string(router_kind_name(config.kind)) + " " +
               padding_rule_name(config.padding_rule));
  config.experts = 4;
  config.max_group_size = 6;
  config.min_capacity = 1;
  config.expert_capacity = 2;
  config.ntlb_k = 3;
  const int64_t tokens = 12, experts = 4, layers = 2;
  const auto router = make_router(config);
  std::vector<uint8_t> real(tokens, 1);
  real[2] = real[11] = 0;
  std::vector<std::vector<double>> logits{random_logits(tokens, experts, 31),
                                          random_logits(tokens, experts, 32)};
  const std::vector<double> weight = random_logits(tokens, experts, 23);
  RouterLossConfig loss;
  loss.rule = rule;
  loss.aux_coefficient = 0.7;
  loss.z_coefficient = 0.3;

  struct Layer {
    RouterInput input;
    RoutingPlan plan;
  };
  const auto run = [&](std::vector<Layer>& run_layers, RouterLosses& losses) {
    double value = 0;
    std::vector<RouterLossTerms> terms;
    run_layers.clear();
    for (int64_t l = 0; l < layers; ++l) {
      Layer layer{input_of(logits[l], experts, DType::f64), {}};
      layer.input.nonpadding = mask_of(real);
      layer.input.batch_rows = 2;
      layer.input.training = true;
      layer.plan = router->assign(layer.input);
      terms.push_back(router->loss_terms(layer.input, layer.plan));
      const std::vector<double> gate = layer.plan.gate.to_vector();
      for (size_t i = 0; i < gate.size(); ++i) {
        const int32_t e = ints(layer.plan.expert)[i];
        if (e >= 0) value += gate[i] * weight[i / layer.plan.choices * experts + e];
      }
      run_layers.push_back(std::move(layer));
    }
    losses = router_losses(terms, loss);
    return value + losses.total;
  };

  std::vector<Layer> at, moved;
  RouterLosses losses, unused;
  run(at, losses);
  // Where f is even the balance has no gradient and the test would see nothing.
  ASSERT_GT(std::abs(losses.aux - std::round(losses.aux)), 0.01);
  for (int64_t l = 0; l < layers; ++l) {
    const RoutingPlan& plan = at[l].plan;
    std::vector<double> d_gate(static_cast<size_t>(plan.gate.elements()), 0.0);
    for (size_t i = 0; i < d_gate.size(); ++i) {
      const int32_t e = ints(plan.expert)[i];
      if (e >= 0) d_gate[i] = weight[i / plan.choices * experts + e];
    }
    Tensor d_p = Tensor::empty({tokens, experts}, DType::f64);
    Tensor d_log_z = Tensor::empty({tokens}, DType::f64);
    router->gate_backward(plan, at[l].input.probabilities,
                          master_tensor(plan.gate.shape(), DType::f64, d_gate), d_p, Accum::write);
    router_losses_backward(losses.gradients[l], 1.0, at[l].input.log_z, at[l].input.nonpadding, d_p,
                           d_log_z);
    const std::vector<double> d_logits = softmax_gradient(at[l].input.probabilities, d_p, d_log_z);
    const double step = 1e-6;
    for (size_t i = 0; i < d_logits.size(); ++i) {
      const double before = logits[l][i];
      logits[l][i] = before + step;
      const double up = run(moved, unused);
      logits[l][i] = before - step;
      const double down = run(moved, unused);
      logits[l][i] = before;
      EXPECT_NEAR(d_logits[i], (up - down) / (2 * step), 2e-8) << "layer " << l << " logit " << i;
    }
  }
}

TEST(RouterLosses, GradientsEqualFiniteDifferencesUnderEveryConvention) {
  for (RouterKind kind : {RouterKind::switch_top1, RouterKind::top2, RouterKind::ntlb}) {
    RouterConfig paper = RouterConfig::preset("paper");
    paper.kind = kind;
    paper.second_train = SecondPolicy::threshold;
    check_gradient(paper, LossRule::sum_layers);
    RouterConfig t5x = RouterConfig::preset("t5x");
    t5x.kind = kind;
    check_gradient(t5x, LossRule::mean_layers);
  }
  RouterConfig hf = RouterConfig::preset("hf");
  check_gradient(hf, LossRule::concat_layers);
  hf.dropped_gate = DroppedGate::kept;
  check_gradient(hf, LossRule::concat_layers);
}

TEST(RouterLosses, BackwardScalesByTheLossAndChecksShapes) {
  RouterConfig config;
  config.experts = 3;
  const auto router = make_router(config);
  const RouterInput input = input_of(random_logits(8, 3, 4), 3, DType::f64);
  const RouterLossTerms terms = router->loss_terms(input, router->assign(input));
  RouterLossConfig loss;
  loss.z_coefficient = 1;
  const RouterLosses losses = router_losses({&terms, 1}, loss);
  Tensor once = Tensor::zeros({8, 3}, DType::f64), twice = Tensor::zeros({8, 3}, DType::f64);
  Tensor d_z_once = Tensor::empty({8}, DType::f64), d_z_twice = Tensor::empty({8}, DType::f64);
  router_losses_backward(losses.gradients[0], 1, input.log_z, Tensor(), once, d_z_once);
  router_losses_backward(losses.gradients[0], 2, input.log_z, Tensor(), twice, d_z_twice);
  for (int i = 0; i < 24; ++i) EXPECT_EQ(twice.to_vector()[i], 2 * once.to_vector()[i]);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(d_z_twice.to_vector()[i], 2 * d_z_once.to_vector()[i]);
  Tensor wrong = Tensor::zeros({8, 4}, DType::f64);
  EXPECT_EQ(thrown_kind([&] {
              router_losses_backward(losses.gradients[0], 1, input.log_z, Tensor(), wrong,
                                     d_z_once);
            }),
            ErrorKind::internal);
}

}  // namespace
}  // namespace sw
