#include "libswitch/moe/router_config.h"

#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "libswitch/base/error.h"

namespace sw {
namespace {

template <class Enum, size_t N>
using Names = std::array<std::pair<Enum, const char*>, N>;

constexpr Names<RouterKind, 3> kRouterKinds{
    {{RouterKind::switch_top1, "switch"}, {RouterKind::top2, "top2"}, {RouterKind::ntlb, "ntlb"}}};
constexpr Names<CapacityRule, 4> kCapacityRules{{{CapacityRule::floor_bounded, "floor_bounded"},
                                                 {CapacityRule::round_half_even, "round_half_even"},
                                                 {CapacityRule::constant, "constant"},
                                                 {CapacityRule::unlimited, "unlimited"}}};
constexpr Names<GroupRule, 2> kGroupRules{{{GroupRule::batch, "batch"}, {GroupRule::row, "row"}}};
constexpr Names<PaddingRule, 3> kPaddingRules{
    {{PaddingRule::counted_not_dispatched, "counted_not_dispatched"},
     {PaddingRule::excluded, "excluded"},
     {PaddingRule::routed, "routed"}}};
constexpr Names<SelectionPolicy, 2> kSelectionPolicies{
    {{SelectionPolicy::argmax, "argmax"}, {SelectionPolicy::sample, "sample"}}};
constexpr Names<SecondPolicy, 4> kSecondPolicies{{{SecondPolicy::all, "all"},
                                                  {SecondPolicy::none, "none"},
                                                  {SecondPolicy::threshold, "threshold"},
                                                  {SecondPolicy::random, "random"}}};

template <class Enum, size_t N>
const char* name_of(const Names<Enum, N>& names, Enum value) {
  for (const auto& [known, name] : names) {
    if (known == value) return name;
  }
  fail(ErrorKind::internal, "router configuration: value {} has no name", static_cast<int>(value));
}

template <class Enum, size_t N>
Enum value_of(const Names<Enum, N>& names, const char* what, const std::string& word) {
  std::vector<std::string> known;
  std::string list;
  for (const auto& [value, name] : names) {
    if (word == name) return value;
    known.emplace_back(name);
    list += (list.empty() ? "" : ", ") + known.back();
  }
  fail(ErrorKind::usage, "{} '{}' is unknown; expected one of {}{}", what, word, list,
       nearest_hint(word, known));
}

void check_positive(const char* name, double value) {
  SW_CHECK(std::isfinite(value) && value > 0, usage,
           "router: {} must be positive and finite, got {}", name, value);
}

}  // namespace

const char* router_kind_name(RouterKind kind) { return name_of(kRouterKinds, kind); }
RouterKind router_kind_from(const std::string& name) {
  return value_of(kRouterKinds, "router kind", name);
}
const char* capacity_rule_name(CapacityRule rule) { return name_of(kCapacityRules, rule); }
CapacityRule capacity_rule_from(const std::string& name) {
  return value_of(kCapacityRules, "capacity rule", name);
}
const char* group_rule_name(GroupRule rule) { return name_of(kGroupRules, rule); }
GroupRule group_rule_from(const std::string& name) {
  return value_of(kGroupRules, "group rule", name);
}
const char* padding_rule_name(PaddingRule rule) { return name_of(kPaddingRules, rule); }
PaddingRule padding_rule_from(const std::string& name) {
  return value_of(kPaddingRules, "padding rule", name);
}
const char* selection_policy_name(SelectionPolicy policy) {
  return name_of(kSelectionPolicies, policy);
}
SelectionPolicy selection_policy_from(const std::string& name) {
  return value_of(kSelectionPolicies, "selection policy", name);
}
const char* second_policy_name(SecondPolicy policy) { return name_of(kSecondPolicies, policy); }
SecondPolicy second_policy_from(const std::string& name) {
  return value_of(kSecondPolicies, "second-expert policy", name);
}

RouterConfig RouterConfig::preset(const std::string& name) {
  RouterConfig config;
  if (name == "paper") return config;
  if (name == "t5x") {
    config.capacity_rule = CapacityRule::round_half_even;
    config.padding_rule = PaddingRule::excluded;
    config.max_group_size = 8192;
    config.count_all_choices = true;
    config.second_train = config.second_eval = SecondPolicy::all;
    return config;
  }
  if (name == "hf") {
    config.capacity_rule = CapacityRule::constant;
    config.group_rule = GroupRule::row;
    config.padding_rule = PaddingRule::routed;
    config.dropped_as_expert_0 = true;
    return config;
  }
  const std::array<std::string, 3> known{"paper", "t5x", "hf"};
  fail(ErrorKind::usage, "routing conventions '{}' are unknown; expected one of paper, t5x, hf{}",
       name, nearest_hint(name, known));
}

void check_router_config(const RouterConfig& config) {
  SW_CHECK(config.experts >= 1, usage, "router: experts must be at least 1, got {}",
           config.experts);
  SW_CHECK(config.max_group_size >= 1, usage, "router: largest group must be at least 1, got {}",
           config.max_group_size);
  check_positive("training capacity factor", config.capacity_factor_train);
  check_positive("evaluation capacity factor", config.capacity_factor_eval);
  SW_CHECK(config.min_capacity >= 0, usage,
           "router: smallest capacity must not be negative, got {}", config.min_capacity);
  SW_CHECK(config.expert_capacity >= 0, usage,
           "router: expert capacity must not be negative, got {}", config.expert_capacity);
  SW_CHECK(std::isfinite(config.temperature) && config.temperature >= 0, usage,
           "router: sampling temperature must be finite and not negative, got {}",
           config.temperature);
  SW_CHECK(std::isfinite(config.second_threshold) && config.second_threshold >= 0, usage,
           "router: second-expert threshold must be finite and not negative, got {}",
           config.second_threshold);
  if (config.kind == RouterKind::ntlb) {
    SW_CHECK(config.ntlb_k >= 1 && config.ntlb_k <= config.experts, usage,
             "router: ntlb_k must be between 1 and the number of experts ({}), got {}",
             config.experts, config.ntlb_k);
  }
  if (config.kind != RouterKind::switch_top1) {
    const char* name = router_kind_name(config.kind);
    SW_CHECK(config.selection == SelectionPolicy::argmax, usage,
             "router: selection '{}' needs the router 'switch', got '{}'",
             selection_policy_name(config.selection), name);
    SW_CHECK(config.dropped_gate == DroppedGate::zero && !config.bf16_gate &&
                 !config.dropped_as_expert_0,
             usage,
             "router: the Hugging Face rules for dropped tokens and bf16 gates are defined for the "
             "router 'switch' only, got '{}'",
             name);
  }
}

}  // namespace sw
