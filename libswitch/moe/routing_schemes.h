// What the routing schemes share, and their constructors for make_router.
#pragma once

#include <memory>

#include "libswitch/moe/router.h"
#include "libswitch/moe/token_sums.h"

namespace sw {

std::unique_ptr<Router> make_switch_router(const RouterConfig& config);
std::unique_ptr<Router> make_top2_router(const RouterConfig& config);
std::unique_ptr<Router> make_ntlb_router(const RouterConfig& config);

/// Index of the largest of n >= 1 values, the lowest on ties.
template <class T>
int64_t argmax(const T* values, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    if (values[i] > values[best]) best = i;
  }
  return best;
}

/// Tokens of work per parallel chunk when each token scans `experts` values.
inline int64_t tokens_per_chunk(int64_t experts) {
  return std::max<int64_t>(16, 32768 / std::max<int64_t>(experts, 1));
}

inline bool is_real(const RouterInput& input, int64_t n) {
  return !input.nonpadding.defined() || input.nonpadding.data<uint8_t>()[n] != 0;
}

/// Whether token n is to be sent to an expert.
inline bool is_routed(const RouterConfig& config, const RouterInput& input, int64_t n) {
  return config.padding_rule == PaddingRule::routed || is_real(input, n);
}

/// d_probabilities [N, E] (=, or +=) from pairs (expert, value): calls fn(n, add) for every token,
/// which calls add(e, value).
template <class T, class Fn>
void scatter_gradient(Tensor& d_probabilities, Accum accum, const Fn& fn) {
  const int64_t experts = d_probabilities.size(1);
  T* d_p = d_probabilities.data<T>();
  parallel_for(d_probabilities.size(0), tokens_per_chunk(experts), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      T* row = d_p + n * experts;
      if (accum == Accum::write) std::fill_n(row, experts, T{0});
      fn(n, [row](int64_t e, T value) { row[e] += value; });
    }
  });
}

/// Throws internal unless the arguments of gate_backward fit the plan.
void check_gate_backward(const RoutingPlan& plan, const Tensor& probabilities, const Tensor& d_gate,
                         const Tensor& d_probabilities);

}  // namespace sw
