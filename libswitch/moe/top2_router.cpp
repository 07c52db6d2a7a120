// GShard's routing: two experts a token, gates normalised over the two. The baseline MoE-Base of
// Fedus et al. 2022; Mesh TensorFlow moe._top_2_gating.
#include <algorithm>

#include "libswitch/moe/routing_schemes.h"

namespace sw {
namespace {

constexpr double kGateEpsilon = 1e-9;

class Top2Router final : public Router {
 public:
  using Router::Router;

  void gate_backward(const RoutingPlan& plan, const Tensor& probabilities, const Tensor& d_gate,
                     Tensor& d_probabilities, Accum accum) const override {
    check_gate_backward(plan, probabilities, d_gate, d_probabilities);
    const int32_t* expert = plan.expert.data<int32_t>();
    const int32_t* slot = plan.slot.data<int32_t>();
    with_master_type(plan.gate.dtype(), "router", [&](auto zero) {
      using T = decltype(zero);
      const T* p = probabilities.data<T>();
      const T* d_g = d_gate.data<T>();
      scatter_gradient<T>(d_probabilities, accum, [&](int64_t n, const auto& add) {
        const int32_t first = expert[2 * n], second = expert[2 * n + 1];
        const T d_1 = slot[2 * n] >= 0 ? d_g[2 * n] : T{0};
        const T d_2 = slot[2 * n + 1] >= 0 ? d_g[2 * n + 1] : T{0};
        if (first < 0 || (d_1 == 0 && d_2 == 0)) return;
        // g_i = p_i / (p_1 + p_2 + ε): both gates depend on both probabilities, even when only one
        // was kept.
        const T p_1 = p[n * plan.experts + first];
        const T p_2 = second < 0 ? T{0} : p[n * plan.experts + second];
        const T sum = p_1 + p_2 + static_cast<T>(kGateEpsilon);
        const T common = (d_1 * p_1 + d_2 * p_2) / (sum * sum);
        add(first, d_1 / sum - common);
        if (second >= 0) add(second, d_2 / sum - common);
      });
    });
  }

 protected:
  int64_t choices() const override { return 2; }

  // The reference leaves padding out of f and P even where the other schemes count it.
  bool padding_in_balance() const override { return config().padding_rule == PaddingRule::routed; }

  void count_assigned(const RouterInput&, const RoutingPlan& plan, int64_t n,
                      double* counts) const override {
    const int32_t* expert = plan.expert.data<int32_t>() + 2 * n;
    counts[expert[0]] += 1;
    if (config().count_all_choices && expert[1] >= 0) counts[expert[1]] += 1;
  }

  void choose(const RouterInput& input, RoutingPlan& plan) const override {
    with_master_type(input.probabilities.dtype(), "router",
                     [&](auto zero) { choose_as<decltype(zero)>(input, plan); });
  }

 private:
  template <class T>
  void choose_as(const RouterInput& input, RoutingPlan& plan) const {
    const int64_t experts = plan.experts;
    const T* p = input.probabilities.data<T>();
    int32_t* expert = plan.expert.data<int32_t>();
    int32_t* slot = plan.slot.data<int32_t>();
    T* gate = plan.gate.data<T>();
    std::vector<uint8_t> uses_second(static_cast<size_t>(plan.tokens), 0);
    parallel_for(plan.tokens, tokens_per_chunk(experts), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        if (!is_routed(config(), input, n)) continue;
        const T* row = p + n * experts;
        const int64_t first = argmax(row, experts);
        // The reference takes the largest of the row with the first set to 0.
        int64_t second = first == 0 && experts > 1 ? 1 : 0;
        for (int64_t e = second + 1; e < experts; ++e) {
          if (e != first && row[e] > row[second]) second = e;
        }
        if (row[second] == 0) second = 0;
        const T p_1 = row[first];
        const T p_2 = second == first ? T{0} : row[second];
        const T sum = p_1 + p_2 + static_cast<T>(kGateEpsilon);
        expert[2 * n] = static_cast<int32_t>(first);
        expert[2 * n + 1] = second == first ? -1 : static_cast<int32_t>(second);
        gate[2 * n] = p_1 / sum;
        gate[2 * n + 1] = p_2 / sum;
        uses_second[n] = wants_second(gate[2 * n + 1], input, n);
      }
    });

    // First choices take slots in the order of the sequence, second choices after the first choices
    // that were kept.
    std::vector<int64_t> filled(static_cast<size_t>(experts));
    const auto place = [&](int64_t i, int64_t e) {
      if (filled[e] < plan.capacity) {
        const int64_t taken = filled[e]++;
        // A gate that underflowed to 0 holds its slot, but its expert's output would count nothing.
        if (gate[i] != 0) slot[i] = static_cast<int32_t>(taken);
      }
      if (slot[i] < 0) gate[i] = 0;
    };
    for (int64_t g = 0; g < plan.groups; ++g) {
      std::fill(filled.begin(), filled.end(), 0);
      const int64_t begin = g * plan.group_size, end = begin + plan.group_size;
      for (int64_t n = begin; n < end; ++n) {
        if (expert[2 * n] < 0) continue;
        ++plan.chosen[expert[2 * n]];
        place(2 * n, expert[2 * n]);
      }
      for (int64_t n = begin; n < end; ++n) {
        if (expert[2 * n] < 0) continue;
        if (!uses_second[n]) {
          gate[2 * n + 1] = 0;
          continue;
        }
        if (expert[2 * n + 1] >= 0) {
          ++plan.chosen[expert[2 * n + 1]];
          place(2 * n + 1, expert[2 * n + 1]);
        } else if (config().capacity_rule != CapacityRule::unlimited) {
          // No probability is left beside the first's: the reference picks the first again, with
          // gate 0, and lets it hold a slot.
          place(2 * n + 1, expert[2 * n]);
        }
      }
    }
  }

  template <class T>
  bool wants_second(T gate, const RouterInput& input, int64_t n) const {
    const T threshold = static_cast<T>(config().second_threshold);
    switch (input.training ? config().second_train : config().second_eval) {
      case SecondPolicy::all: return true;
      case SecondPolicy::none: return false;
      case SecondPolicy::threshold: return gate > threshold;
      case SecondPolicy::random:
        return static_cast<T>(
                   random_uniform(input.key, static_cast<uint64_t>(input.first_token + n))) <
               gate / std::max(threshold, static_cast<T>(1e-9));
    }
    return false;
  }
};

}  // namespace

std::unique_ptr<Router> make_top2_router(const RouterConfig& config) {
  return std::make_unique<Top2Router>(config);
}

}  // namespace sw
