#include "libswitch/moe/router.h"

#include <algorithm>
#include <cmath>

#include "libswitch/moe/routing_schemes.h"
#include "libswitch/moe/token_sums.h"

namespace sw {
namespace {

void check_input(const RouterConfig& config, const RouterInput& input) {
  SW_CHECK(input.probabilities.defined() && input.probabilities.rank() == 2 &&
               input.probabilities.size(0) >= 1 && input.probabilities.size(1) == config.experts,
           usage, "router: probabilities: expected [tokens, {}], got {}", config.experts,
           input.probabilities.defined() ? input.probabilities.shape().str() : "nothing");
  const int64_t tokens = input.probabilities.size(0);
  with_master_type(input.probabilities.dtype(), "router", [](auto) {});
  check_tensor("router", "log_z", input.log_z, {tokens}, input.probabilities.dtype());
  if (input.nonpadding.defined()) {
    check_tensor("router", "nonpadding", input.nonpadding, {tokens}, DType::u8);
  }
  SW_CHECK(input.shards >= 1, usage, "router: shards must be at least 1, got {}", input.shards);
  SW_CHECK(input.batch_rows >= 1 && tokens % input.batch_rows == 0, usage,
           "router: {} tokens cannot lie in {} batch rows of equal length", tokens,
           input.batch_rows);
}

// The softmax's log Σ exp shows every logit that is not finite, except a single -inf, which is a
// probability of 0.
template <class T>
void check_finite(const Tensor& log_z) {
  const T* values = log_z.data<T>();
  for (int64_t n = 0; n < log_z.elements(); ++n) {
    SW_CHECK(std::isfinite(values[n]), diverged,
             "router: logits of token {} of {}: expected finite values, got log sum exp {}; the "
             "training has diverged: resume from an earlier checkpoint with a lower learning rate",
             n, log_z.elements(), static_cast<double>(values[n]));
  }
}

}  // namespace

void check_finite_logits(const Tensor& log_z) {
  with_master_type(log_z.dtype(), "router",
                   [&](auto zero) { check_finite<decltype(zero)>(log_z); });
}

RoutingPlan Router::assign(const RouterInput& input) const {
  check_input(config_, input);
  check_finite_logits(input.log_z);

  RoutingPlan plan;
  plan.tokens = input.probabilities.size(0);
  plan.experts = config_.experts;
  plan.choices = choices();
  const GroupSplit split =
      config_.group_rule == GroupRule::row
          ? GroupSplit{input.batch_rows, plan.tokens / input.batch_rows}
          : split_into_groups(plan.tokens, input.shards, config_.max_group_size);
  plan.groups = split.groups;
  plan.group_size = split.size;
  plan.capacity = expert_capacity(config_, split.size, input.training);

  const Shape shape{plan.tokens, plan.choices};
  plan.expert = Tensor::empty(shape, DType::i32);
  plan.slot = Tensor::empty(shape, DType::i32);
  std::fill_n(plan.expert.data<int32_t>(), plan.expert.elements(), -1);
  std::fill_n(plan.slot.data<int32_t>(), plan.slot.elements(), -1);
  plan.gate = Tensor::zeros(shape, input.probabilities.dtype());
  plan.chosen.assign(static_cast<size_t>(plan.experts), 0);

  choose(input, plan);
  build_rows(plan);

  const int32_t* slot = plan.slot.data<int32_t>();
  for (int64_t n = 0; n < plan.tokens; ++n) {
    if (!is_routed(config_, input, n)) continue;
    ++plan.routed_tokens;
    const int32_t* first = slot + n * plan.choices;
    plan.dropped_tokens +=
        std::all_of(first, first + plan.choices, [](int32_t s) { return s < 0; });
  }
  return plan;
}

RouterLossTerms Router::loss_terms(const RouterInput& input, const RoutingPlan& plan) const {
  check_input(config_, input);
  SW_CHECK(plan.tokens == input.probabilities.size(0) && plan.experts == config_.experts, internal,
           "router: the plan is of {} tokens and {} experts, the input of {} and {}", plan.tokens,
           plan.experts, input.probabilities.size(0), config_.experts);
  const int64_t experts = plan.experts, groups = plan.groups, size = plan.group_size;

  RouterLossTerms terms;
  terms.groups = groups;
  terms.experts = experts;
  terms.shards = input.shards;
  terms.padding_in_balance = padding_in_balance();
  terms.padding_in_z = config_.padding_rule == PaddingRule::routed;
  terms.assigned_divisor = static_cast<double>(size) * counted_per_token();
  terms.probability_divisor = static_cast<double>(size);

  // Per group: E choices counted, E probabilities, log_z² and real tokens.
  const int64_t width = 2 * experts + 2;
  std::vector<double> sums;
  with_master_type(input.probabilities.dtype(), "router", [&](auto zero) {
    using T = decltype(zero);
    const T* p = input.probabilities.data<T>();
    const T* log_z = input.log_z.data<T>();
    sums = sum_per_group(groups, size, width, [&](int64_t n, double* sum) {
      const bool real = is_real(input, n);
      if (real || terms.padding_in_balance) {
        count_assigned(input, plan, n, sum);
        for (int64_t e = 0; e < experts; ++e) sum[experts + e] += p[n * experts + e];
      }
      if (real || terms.padding_in_z) {
        sum[2 * experts] += static_cast<double>(log_z[n]) * static_cast<double>(log_z[n]);
      }
      sum[2 * experts + 1] += real;
    });
  });

  double real_tokens = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const double* sum = sums.data() + g * width;
    terms.assigned.insert(terms.assigned.end(), sum, sum + experts);
    terms.probability.insert(terms.probability.end(), sum + experts, sum + 2 * experts);
    terms.z_sum += sum[2 * experts];
    const double real = sum[2 * experts + 1];
    real_tokens += real;
    const bool scaled =
        config_.padding_rule == PaddingRule::counted_not_dispatched && terms.padding_in_balance;
    terms.weight.push_back(scaled ? real / static_cast<double>(size) : 1.0);
  }
  const double shards = static_cast<double>(input.shards);
  if (config_.padding_rule == PaddingRule::counted_not_dispatched) {
    terms.z_divisor = input.nonpadding_total > 0 ? static_cast<double>(input.nonpadding_total)
                                                 : real_tokens * shards;
  } else {
    terms.z_divisor = static_cast<double>(plan.tokens) * shards;
  }
  return terms;
}

void check_gate_backward(const RoutingPlan& plan, const Tensor& probabilities, const Tensor& d_gate,
                         const Tensor& d_probabilities) {
  const char* where = "router gate backward";
  const DType dtype = plan.gate.dtype();
  check_tensor(where, "probabilities", probabilities, {plan.tokens, plan.experts}, dtype);
  check_tensor(where, "d_gate", d_gate, {plan.tokens, plan.choices}, dtype);
  check_tensor(where, "d_probabilities", d_probabilities, {plan.tokens, plan.experts}, dtype);
}

std::unique_ptr<Router> make_router(const RouterConfig& config) {
  check_router_config(config);
  switch (config.kind) {
    case RouterKind::switch_top1: return make_switch_router(config);
    case RouterKind::top2: return make_top2_router(config);
    case RouterKind::ntlb: return make_ntlb_router(config);
  }
  fail(ErrorKind::internal, "make_router: unknown kind");
}

}  // namespace sw
