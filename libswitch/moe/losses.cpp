#include "libswitch/moe/losses.h"

#include <algorithm>

#include "libswitch/base/parallel.h"
#include "libswitch/moe/token_sums.h"

namespace sw {
namespace {

void check_terms(const RouterLossTerms& terms) {
  const size_t cells = static_cast<size_t>(terms.groups * terms.experts);
  SW_CHECK(terms.groups >= 1 && terms.experts >= 1 && terms.shards >= 1 &&
               terms.assigned.size() == cells && terms.probability.size() == cells &&
               terms.weight.size() == static_cast<size_t>(terms.groups) &&
               terms.assigned_divisor > 0 && terms.probability_divisor > 0,
           internal,
           "router losses: terms of {} groups and {} experts with {} counts, {} sums, {} weights",
           terms.groups, terms.experts, terms.assigned.size(), terms.probability.size(),
           terms.weight.size());
}

// The balance loss of one set of f and P, and its derivative by P[g, e]. `f` and `P` are [G, E].
struct Balance {
  double value = 0;
  std::vector<double> d_mean_probability;
};

Balance balance_loss(const RouterLossTerms& sizes, const std::vector<double>& f,
                     const std::vector<double>& mean_probability) {
  Balance result;
  result.d_mean_probability.resize(f.size());
  for (int64_t g = 0; g < sizes.groups; ++g) {
    // Mean over all groups of all shards.
    const double scale = sizes.weight[g] * static_cast<double>(sizes.experts) /
                         static_cast<double>(sizes.groups * sizes.shards);
    double sum = 0;
    for (int64_t i = g * sizes.experts; i < (g + 1) * sizes.experts; ++i) {
      sum += f[i] * mean_probability[i];
      result.d_mean_probability[i] = scale * f[i];
    }
    result.value += scale * sum;
  }
  return result;
}

std::vector<double> scaled(const std::vector<double>& values, double divisor) {
  std::vector<double> result(values.size());
  std::transform(values.begin(), values.end(), result.begin(),
                 [divisor](double value) { return value / divisor; });
  return result;
}

RouterLossGradient gradient_of(const RouterLossTerms& layer, const Balance& balance,
                               double aux_weight, double z_weight, double z_divisor) {
  RouterLossGradient gradient;
  gradient.d_probability = balance.d_mean_probability;
  for (double& value : gradient.d_probability) value *= aux_weight / layer.probability_divisor;
  gradient.d_log_z = z_divisor > 0 ? z_weight * 2 / z_divisor : 0;
  gradient.padding_in_balance = layer.padding_in_balance;
  gradient.padding_in_z = layer.padding_in_z;
  return gradient;
}

}  // namespace

RouterLosses router_losses(std::span<const RouterLossTerms> layers,
                           const RouterLossConfig& config) {
  RouterLosses losses;
  if (layers.empty()) return losses;
  const double given = static_cast<double>(layers.size());
  std::vector<Balance> balances;
  for (const RouterLossTerms& layer : layers) {
    check_terms(layer);
    balances.push_back(balance_loss(layer, scaled(layer.assigned, layer.assigned_divisor),
                                    scaled(layer.probability, layer.probability_divisor)));
    losses.layer_aux.push_back(balances.back().value);
    losses.layer_z.push_back(layer.z_divisor > 0 ? layer.z_sum / layer.z_divisor : 0);
  }

  if (config.rule == LossRule::concat_layers) {
    const RouterLossTerms& first = layers.front();
    std::vector<double> f(first.assigned.size(), 0.0), mean_probability(f.size(), 0.0);
    double z_sum = 0, z_divisor = 0;
    for (const RouterLossTerms& layer : layers) {
      SW_CHECK(layer.groups == first.groups && layer.experts == first.experts &&
                   layer.shards == first.shards,
               internal,
               "router losses: layers of one stack with {} and {} groups, {} and {} experts cannot "
               "be joined",
               first.groups, layer.groups, first.experts, layer.experts);
      for (size_t i = 0; i < f.size(); ++i) {
        f[i] += layer.assigned[i] / (layer.assigned_divisor * given);
        mean_probability[i] += layer.probability[i] / (layer.probability_divisor * given);
      }
      z_sum += layer.z_sum;
      z_divisor += layer.z_divisor;
    }
    const Balance joined = balance_loss(first, f, mean_probability);
    losses.aux = joined.value;
    losses.z = z_divisor > 0 ? z_sum / z_divisor : 0;
    for (const RouterLossTerms& layer : layers) {
      losses.gradients.push_back(gradient_of(layer, joined, config.aux_coefficient / given,
                                             config.z_coefficient, z_divisor));
    }
  } else {
    const double count = config.layers > 0 ? static_cast<double>(config.layers) : given;
    const double factor = config.rule == LossRule::mean_layers ? 1 / count : 1;
    for (size_t l = 0; l < layers.size(); ++l) {
      losses.aux += factor * losses.layer_aux[l];
      losses.z += factor * losses.layer_z[l];
      losses.gradients.push_back(gradient_of(layers[l], balances[l],
                                             config.aux_coefficient * factor,
                                             config.z_coefficient * factor, layers[l].z_divisor));
    }
  }
  losses.total = config.aux_coefficient * losses.aux + config.z_coefficient * losses.z;
  return losses;
}

void router_losses_backward(const RouterLossGradient& gradient, double d_loss, const Tensor& log_z,
                            const Tensor& nonpadding, Tensor& d_probabilities, Tensor& d_log_z) {
  const char* where = "router losses backward";
  SW_CHECK(d_probabilities.defined() && d_probabilities.rank() == 2 && d_probabilities.size(1) >= 1,
           internal, "{}: d_probabilities: expected [tokens, experts]", where);
  const int64_t tokens = d_probabilities.size(0), experts = d_probabilities.size(1);
  const int64_t groups = static_cast<int64_t>(gradient.d_probability.size()) / experts;
  SW_CHECK(groups >= 1 && tokens % groups == 0 &&
               static_cast<int64_t>(gradient.d_probability.size()) == groups * experts,
           internal, "{}: {} coefficients do not fit d_probabilities {}", where,
           gradient.d_probability.size(), d_probabilities.shape().str());
  check_tensor(where, "log_z", log_z, {tokens}, d_probabilities.dtype());
  check_tensor(where, "d_log_z", d_log_z, {tokens}, d_probabilities.dtype());
  if (nonpadding.defined()) check_tensor(where, "nonpadding", nonpadding, {tokens}, DType::u8);
  const uint8_t* real = nonpadding.defined() ? nonpadding.data<uint8_t>() : nullptr;
  const int64_t group_size = tokens / groups;

  with_master_type(d_probabilities.dtype(), where, [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> coefficient(gradient.d_probability.size());
    for (size_t i = 0; i < coefficient.size(); ++i) {
      coefficient[i] = static_cast<T>(d_loss * gradient.d_probability[i]);
    }
    const T z_coefficient = static_cast<T>(d_loss * gradient.d_log_z);
    const T* z = log_z.data<T>();
    T* d_p = d_probabilities.data<T>();
    T* d_z = d_log_z.data<T>();
    const int64_t grain = std::max<int64_t>(16, 32768 / experts);
    parallel_for(tokens, grain, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const bool padding = real != nullptr && real[n] == 0;
        d_z[n] = padding && !gradient.padding_in_z ? T{0} : z_coefficient * z[n];
        if (padding && !gradient.padding_in_balance) continue;
        const T* c = coefficient.data() + n / group_size * experts;
        for (int64_t e = 0; e < experts; ++e) d_p[n * experts + e] += c[e];
      }
    });
  });
}

}  // namespace sw
