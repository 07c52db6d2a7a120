#include "libswitch/moe/router_config.h"

#include "tests/moe/routing_case.h"

namespace sw {
namespace {

RouterConfig valid(RouterKind kind) {
  RouterConfig config;
  config.kind = kind;
  config.experts = 8;
  return config;
}

TEST(RouterConfig, NamesAreReadBack) {
  for (RouterKind kind : {RouterKind::switch_top1, RouterKind::top2, RouterKind::ntlb}) {
    EXPECT_EQ(router_kind_from(router_kind_name(kind)), kind);
    EXPECT_STREQ(make_router(valid(kind))->name(), router_kind_name(kind));
  }
  EXPECT_EQ(capacity_rule_from("round_half_even"), CapacityRule::round_half_even);
  EXPECT_EQ(group_rule_from("row"), GroupRule::row);
  EXPECT_EQ(padding_rule_from("excluded"), PaddingRule::excluded);
  EXPECT_EQ(selection_policy_from("sample"), SelectionPolicy::sample);
  EXPECT_EQ(second_policy_from("threshold"), SecondPolicy::threshold);
}

TEST(RouterConfig, AnUnknownNameIsAUsageErrorThatNamesTheNearest) {
  std::string message;
  EXPECT_EQ(thrown_kind([] { router_kind_from("swich"); }, &message), ErrorKind::usage);
  EXPECT_NE(message.find("did you mean 'switch'"), std::string::npos) << message;
  EXPECT_EQ(thrown_kind([] { RouterConfig::preset("torch"); }), ErrorKind::usage);
}

TEST(RouterConfig, WhatIsOutOfRangeIsRefused) {
  const auto refused = [](RouterKind kind, auto change) {
    RouterConfig config = valid(kind);
    change(config);
    return thrown_kind([&] { make_router(config); }) == ErrorKind::usage;
  };
  const RouterKind one = RouterKind::switch_top1;
  EXPECT_TRUE(refused(one, [](RouterConfig& c) { c.experts = 0; }));
  EXPECT_TRUE(refused(one, [](RouterConfig& c) { c.capacity_factor_train = 0; }));
  EXPECT_TRUE(refused(one, [](RouterConfig& c) { c.capacity_factor_eval = std::nan(""); }));
  EXPECT_TRUE(refused(one, [](RouterConfig& c) { c.min_capacity = -1; }));
  EXPECT_TRUE(refused(one, [](RouterConfig& c) { c.expert_capacity = -1; }));
  EXPECT_TRUE(refused(one, [](RouterConfig& c) { c.max_group_size = 0; }));
  EXPECT_TRUE(refused(one, [](RouterConfig& c) { c.temperature = -1; }));
  EXPECT_TRUE(refused(RouterKind::top2, [](RouterConfig& c) { c.second_threshold = -0.1; }));
  EXPECT_TRUE(refused(RouterKind::ntlb, [](RouterConfig& c) { c.ntlb_k = 9; }));
  EXPECT_TRUE(refused(RouterKind::ntlb, [](RouterConfig& c) { c.ntlb_k = 0; }));
  EXPECT_TRUE(
      refused(RouterKind::top2, [](RouterConfig& c) { c.selection = SelectionPolicy::sample; }));
  EXPECT_TRUE(refused(RouterKind::ntlb, [](RouterConfig& c) { c.dropped_as_expert_0 = true; }));
}

TEST(Router, InputsThatDoNotFitAreUsageErrors) {
  const std::unique_ptr<Router> router = make_router(valid(RouterKind::switch_top1));
  const auto kind_of = [&](auto change) {
    RouterInput input = input_of(random_logits(6, 8, 1), 8);
    change(input);
    return thrown_kind([&] { router->assign(input); });
  };
  EXPECT_EQ(kind_of([](RouterInput& i) { i.probabilities = Tensor(); }), ErrorKind::usage);
  EXPECT_EQ(kind_of([](RouterInput& i) { i = input_of(random_logits(6, 4, 1), 4); }),
            ErrorKind::usage);
  EXPECT_EQ(kind_of([](RouterInput& i) {
              i.probabilities = Tensor::zeros({6, 8}, DType::bf16);
            }),
            ErrorKind::usage);
  EXPECT_EQ(kind_of([](RouterInput& i) { i.shards = 0; }), ErrorKind::usage);
  EXPECT_EQ(kind_of([](RouterInput& i) { i.batch_rows = 4; }), ErrorKind::usage);
}

TEST(Router, LogitsThatAreNotFiniteMeanDivergedAndNameTheToken) {
  for (RouterKind kind : {RouterKind::switch_top1, RouterKind::top2, RouterKind::ntlb}) {
    for (double bad : {std::nan(""), double(INFINITY)}) {
      RouterInput input = input_of(random_logits(6, 8, 1), 8);
      for (int64_t e = 0; e < 8; ++e) input.probabilities.data<float>()[3 * 8 + e] = std::nanf("");
      input.log_z.data<float>()[3] = static_cast<float>(bad);
      std::string message;
      EXPECT_EQ(thrown_kind([&] { make_router(valid(kind))->assign(input); }, &message),
                ErrorKind::diverged);
      EXPECT_NE(message.find("token 3 of 6"), std::string::npos) << message;
    }
  }
}

}  // namespace
}  // namespace sw
