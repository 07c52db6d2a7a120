#include "libswitch/moe/statistics.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "libswitch/moe/token_sums.h"

namespace sw {
namespace {

double ratio(double numerator, double denominator) {
  return denominator > 0 ? numerator / denominator : 0;
}

int64_t total(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Every expert's load; the total is formed once, so that this is linear in the experts.
std::vector<double> loads(const std::vector<int64_t>& chosen) {
  const auto all = static_cast<double>(total(chosen));
  std::vector<double> out;
  out.reserve(chosen.size());
  for (const int64_t count : chosen) out.push_back(ratio(static_cast<double>(count), all));
  return out;
}

}  // namespace

void RouterStatistics::merge(const RouterStatistics& other) {
  if (other.experts == 0) return;
  if (experts == 0) {
    *this = other;
    return;
  }
  SW_CHECK(experts == other.experts, internal,
           "router statistics of {}: cannot add {} experts ({}) to {}", name, other.experts,
           other.name, experts);
  tokens += other.tokens;
  dropped_tokens += other.dropped_tokens;
  slots += other.slots;
  capacity = std::max(capacity, other.capacity);
  for (int64_t e = 0; e < experts; ++e) {
    chosen[e] += other.chosen[e];
    kept[e] += other.kept[e];
    probability[e] += other.probability[e];
  }
  gate_sum += other.gate_sum;
  entropy_sum += other.entropy_sum;
  add_losses(other.aux_sum, other.z_sum, other.loss_weight);
}

void RouterStatistics::add_losses(double aux, double z, double weight) {
  aux_sum += aux;
  z_sum += z;
  loss_weight += weight;
}

double RouterStatistics::load(int64_t expert) const {
  return ratio(static_cast<double>(chosen[expert]), static_cast<double>(total(chosen)));
}

double RouterStatistics::max_over_mean() const {
  double largest = 0;
  for (const double share : loads(chosen)) largest = std::max(largest, share);
  return largest * static_cast<double>(experts);
}

double RouterStatistics::load_entropy() const {
  if (experts <= 1) return 1;
  double entropy = 0;
  for (const double share : loads(chosen)) {
    if (share > 0) entropy -= share * std::log(share);
  }
  return entropy / std::log(static_cast<double>(experts));
}

int64_t RouterStatistics::dead(double share) const {
  int64_t count = 0;
  for (const double load : loads(chosen)) {
    count += load == 0 || load * static_cast<double>(experts) < share;
  }
  return count;
}

double RouterStatistics::dropped_share() const {
  return ratio(static_cast<double>(dropped_tokens), static_cast<double>(tokens));
}
double RouterStatistics::capacity_use() const {
  return ratio(static_cast<double>(total(kept)), static_cast<double>(slots));
}
double RouterStatistics::confidence() const {
  return ratio(gate_sum, static_cast<double>(total(kept)));
}
double RouterStatistics::token_entropy() const {
  if (experts <= 1) return 1;
  return ratio(entropy_sum, static_cast<double>(tokens)) / std::log(static_cast<double>(experts));
}
double RouterStatistics::aux() const { return ratio(aux_sum, loss_weight); }
double RouterStatistics::z() const { return ratio(z_sum, loss_weight); }

RouterStatistics router_statistics(const std::string& name, const RouterInput& input,
                                   const RoutingPlan& plan, PaddingRule padding_rule) {
  const int64_t experts = plan.experts;
  check_tensor("router statistics", "probabilities", input.probabilities, {plan.tokens, experts},
               plan.gate.dtype());
  RouterStatistics statistics;
  statistics.name = name;
  statistics.experts = experts;
  statistics.tokens = plan.routed_tokens;
  statistics.dropped_tokens = plan.dropped_tokens;
  statistics.chosen = plan.chosen;
  statistics.kept = plan.kept;
  statistics.slots = plan.capacity * plan.groups * experts;
  statistics.capacity = plan.capacity;
  statistics.probability.assign(static_cast<size_t>(experts), 0.0);

  const int32_t* row_of = plan.row_of.data<int32_t>();
  const uint8_t* real = padding_rule != PaddingRule::routed && input.nonpadding.defined()
                            ? input.nonpadding.data<uint8_t>()
                            : nullptr;
  const int64_t width = experts + 2;  // probabilities, entropy, gates
  with_master_type(plan.gate.dtype(), "router statistics", [&](auto zero) {
    using T = decltype(zero);
    const T* p = input.probabilities.data<T>();
    const T* gate = plan.gate.data<T>();
    const std::vector<double> sums =
        sum_per_group(plan.groups, plan.group_size, width, [&](int64_t n, double* sum) {
          for (int64_t i = n * plan.choices; i < (n + 1) * plan.choices; ++i) {
            if (row_of[i] >= 0) sum[experts + 1] += static_cast<double>(gate[i]);
          }
          if (real != nullptr && real[n] == 0) return;
          const T* row = p + n * experts;
          double entropy = 0;
          for (int64_t e = 0; e < experts; ++e) {
            sum[e] += static_cast<double>(row[e]);
            if (row[e] > 0) entropy -= static_cast<double>(row[e] * std::log(row[e]));
          }
          sum[experts] += entropy;
        });
    for (int64_t g = 0; g < plan.groups; ++g) {
      const double* sum = sums.data() + g * width;
      for (int64_t e = 0; e < experts; ++e) statistics.probability[e] += sum[e];
      statistics.entropy_sum += sum[experts];
      statistics.gate_sum += sum[experts + 1];
    }
  });
  return statistics;
}

nlohmann::json to_json(const RouterStatistics& statistics) {
  return {{"name", statistics.name},
          {"experts", statistics.experts},
          {"tokens", statistics.tokens},
          {"load", loads(statistics.chosen)},
          {"max_over_mean", statistics.max_over_mean()},
          {"entropy", statistics.load_entropy()},
          {"dead", statistics.dead()},
          {"dropped_share", statistics.dropped_share()},
          {"capacity_use", statistics.capacity_use()},
          {"confidence", statistics.confidence()},
          {"token_entropy", statistics.token_entropy()},
          {"aux_loss", statistics.aux()},
          {"z_loss", statistics.z()}};
}

}  // namespace sw
