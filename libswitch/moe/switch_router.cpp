// Switch routing: every token goes to one expert, its gate is that expert's probability. Fedus et
// al. 2022, section 2.1; Mesh TensorFlow moe._switch_gating; Hugging Face
// SwitchTransformersTop1Router.
#include <cmath>
#include <limits>

#include "libswitch/moe/routing_schemes.h"

namespace sw {
namespace {

class SwitchRouter final : public Router {
 public:
  using Router::Router;

  void gate_backward(const RoutingPlan& plan, const Tensor& probabilities, const Tensor& d_gate,
                     Tensor& d_probabilities, Accum accum) const override {
    check_gate_backward(plan, probabilities, d_gate, d_probabilities);
    const int32_t* expert = plan.expert.data<int32_t>();
    const int32_t* slot = plan.slot.data<int32_t>();
    const bool dropped_too = config().dropped_gate == DroppedGate::kept;
    with_master_type(plan.gate.dtype(), "router", [&](auto zero) {
      using T = decltype(zero);
      const T* d_g = d_gate.data<T>();
      scatter_gradient<T>(d_probabilities, accum, [&](int64_t n, const auto& add) {
        if (slot[n] >= 0 || (dropped_too && expert[n] >= 0)) add(expert[n], d_g[n]);
      });
    });
  }

 protected:
  void choose(const RouterInput& input, RoutingPlan& plan) const override {
    with_master_type(input.probabilities.dtype(), "router",
                     [&](auto zero) { choose_as<decltype(zero)>(input, plan); });
  }

  void count_assigned(const RouterInput& input, const RoutingPlan& plan, int64_t n,
                      double* counts) const override {
    int64_t e = plan.expert.data<int32_t>()[n];
    if (e < 0) {  // padding that counts: what it would have chosen
      with_master_type(input.probabilities.dtype(), "router",
                       [&](auto zero) { e = pick<decltype(zero)>(input, n); });
    } else if (config().dropped_as_expert_0 && plan.slot.data<int32_t>()[n] < 0) {
      e = 0;
    }
    counts[e] += 1;
  }

 private:
  template <class T>
  void choose_as(const RouterInput& input, RoutingPlan& plan) const {
    const int64_t experts = plan.experts;
    const T* p = input.probabilities.data<T>();
    int32_t* expert = plan.expert.data<int32_t>();
    int32_t* slot = plan.slot.data<int32_t>();
    T* gate = plan.gate.data<T>();
    parallel_for(plan.tokens, tokens_per_chunk(experts), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        if (is_routed(config(), input, n)) expert[n] = static_cast<int32_t>(pick<T>(input, n));
      }
    });
    // Slots go to tokens in the order of the sequence.
    std::vector<int64_t> filled(static_cast<size_t>(experts));
    for (int64_t n = 0; n < plan.tokens; ++n) {
      if (n % plan.group_size == 0) std::fill(filled.begin(), filled.end(), 0);
      if (expert[n] < 0) continue;
      ++plan.chosen[expert[n]];
      const bool fits = filled[expert[n]] < plan.capacity;
      if (fits) slot[n] = static_cast<int32_t>(filled[expert[n]]++);
      if (fits || config().dropped_gate == DroppedGate::kept) {
        gate[n] = rounded(p[n * experts + expert[n]]);
      }
    }
  }

  template <class T>
  T rounded(T probability) const {
    return config().bf16_gate ? static_cast<T>(float(bf16(static_cast<float>(probability))))
                              : probability;
  }

  template <class T>
  int64_t pick(const RouterInput& input, int64_t n) const {
    const int64_t experts = config().experts;
    const T* p = input.probabilities.data<T>() + n * experts;
    if (config().selection == SelectionPolicy::sample && config().temperature > 0) {
      return sample(p, input.key, (input.first_token + n) * experts);
    }
    if (!config().bf16_gate) return argmax(p, experts);
    int64_t best = 0;
    for (int64_t e = 1; e < experts; ++e) {
      if (rounded(p[e]) > rounded(p[best])) best = e;
    }
    return best;
  }

  // Gumbel-max: argmax of log p + temperature · g, g standard Gumbel, draws from `index` on.
  template <class T>
  int64_t sample(const T* p, RngKey key, int64_t index) const {
    int64_t best = 0;
    double best_score = -std::numeric_limits<double>::infinity();
    for (int64_t e = 0; e < config().experts; ++e) {
      if (!(p[e] > 0)) continue;
      const double uniform = (random_u32(key, static_cast<uint64_t>(index + e)) + 0.5) * 0x1.0p-32;
      const double score =
          std::log(static_cast<double>(p[e])) - config().temperature * std::log(-std::log(uniform));
      if (score > best_score) best = e, best_score = score;
    }
    return best;
  }
};

}  // namespace

std::unique_ptr<Router> make_switch_router(const RouterConfig& config) {
  return std::make_unique<SwitchRouter>(config);
}

}  // namespace sw
