// No token left behind: in up to k rounds a token that found no place tries its next best expert.
// Fedus et al. 2022, appendix B; Mesh TensorFlow moe._ntlb_gating.
#include <algorithm>

#include "libswitch/moe/routing_schemes.h"

namespace sw {
namespace {

class NtlbRouter final : public Router {
 public:
  using Router::Router;

  void gate_backward(const RoutingPlan& plan, const Tensor& probabilities, const Tensor& d_gate,
                     Tensor& d_probabilities, Accum accum) const override {
    check_gate_backward(plan, probabilities, d_gate, d_probabilities);
    const int32_t* expert = plan.expert.data<int32_t>();
    const int32_t* slot = plan.slot.data<int32_t>();
    with_master_type(plan.gate.dtype(), "router", [&](auto zero) {
      using T = decltype(zero);
      const T* d_g = d_gate.data<T>();
      scatter_gradient<T>(d_probabilities, accum, [&](int64_t n, const auto& add) {
        if (slot[n] >= 0) add(expert[n], d_g[n]);
      });
    });
  }

 protected:
  // f averages over the k candidates of every token, wherever the token went.
  double counted_per_token() const override { return static_cast<double>(config().ntlb_k); }

  void count_assigned(const RouterInput& input, const RoutingPlan& plan, int64_t n,
                      double* counts) const override {
    with_master_type(input.probabilities.dtype(), "router", [&](auto zero) {
      using T = decltype(zero);
      std::vector<int32_t> candidates(static_cast<size_t>(config().ntlb_k));
      best_experts(input.probabilities.data<T>() + n * plan.experts, candidates.data());
      for (const int32_t e : candidates) counts[e] += 1;
    });
  }

  void choose(const RouterInput& input, RoutingPlan& plan) const override {
    with_master_type(input.probabilities.dtype(), "router",
                     [&](auto zero) { choose_as<decltype(zero)>(input, plan); });
  }

 private:
  template <class T>
  void choose_as(const RouterInput& input, RoutingPlan& plan) const {
    const int64_t experts = plan.experts, k = config().ntlb_k;
    const T* p = input.probabilities.data<T>();
    int32_t* expert = plan.expert.data<int32_t>();
    int32_t* slot = plan.slot.data<int32_t>();
    T* gate = plan.gate.data<T>();
    std::vector<int32_t> candidates(static_cast<size_t>(plan.tokens * k));
    parallel_for(plan.tokens, tokens_per_chunk(experts * k), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        best_experts(p + n * experts, candidates.data() + n * k);
        // Stands if no round finds it a place.
        if (is_routed(config(), input, n)) expert[n] = candidates[n * k];
      }
    });

    std::vector<int64_t> filled(static_cast<size_t>(experts));
    std::vector<uint8_t> placed(static_cast<size_t>(plan.group_size));
    for (int64_t g = 0; g < plan.groups; ++g) {
      std::fill(filled.begin(), filled.end(), 0);
      std::fill(placed.begin(), placed.end(), 0);
      const int64_t begin = g * plan.group_size, end = begin + plan.group_size;
      for (int64_t round = 0; round < k; ++round) {
        for (int64_t n = begin; n < end; ++n) {
          if (expert[n] < 0 || placed[n - begin]) continue;
          const int32_t e = candidates[n * k + round];
          if (round == 0) ++plan.chosen[e];
          if (filled[e] >= plan.capacity) continue;
          placed[n - begin] = 1;
          const int64_t taken = filled[e]++;
          // A probability that underflowed to 0 holds its slot, but its expert's output would count
          // nothing.
          if (p[n * experts + e] == 0) continue;
          expert[n] = e;
          slot[n] = static_cast<int32_t>(taken);
          gate[n] = p[n * experts + e];
        }
      }
    }
  }

  // The k most probable experts, most probable first, lower index first on ties.
  template <class T>
  void best_experts(const T* p, int32_t* best) const {
    for (int64_t i = 0; i < config().ntlb_k; ++i) {
      int32_t next = -1;
      for (int64_t e = 0; e < config().experts; ++e) {
        if (std::find(best, best + i, e) != best + i) continue;
        if (next < 0 || p[e] > p[next]) next = static_cast<int32_t>(e);
      }
      best[i] = next;
    }
  }
};

}  // namespace

std::unique_ptr<Router> make_ntlb_router(const RouterConfig& config) {
  return std::make_unique<NtlbRouter>(config);
}

}  // namespace sw
