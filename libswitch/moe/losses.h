// The router's losses: load balance and router z-loss, for several layers together.
//
// With f[g,e] the fraction of group g's tokens whose choice is expert e (before capacity, no
// gradient), P[g,e] the mean probability of e in g, w[g] a weight:
//
//   balance of a layer = mean over g of  w[g] · E · Σ_e f[g,e] · P[g,e]     (1 when uniform, E when
//                                                                            collapsed)
//   z of a layer       = Σ_n log_z[n]² / number of tokens that count        (Zoph et al. 2022)
//
// Conventions differ in which tokens count, in the divisors, and in how layers are joined; each
// Router fills RouterLossTerms by its own rule and LossRule joins them. Because the hf rule
// multiplies f and P only after summing them over all layers of a stack, no layer knows its loss
// while it runs. So a layer leaves its small RouterLossTerms behind, router_losses turns those of a
// stack into values and coefficients, and the backward pass of a layer adds, per token n of group
// g,
//
//   d_probabilities[n,e] += d_probability[g,e] · counts(n),   d_log_z[n] = d_log_z · log_z[n] ·
//                                                                          counts(n).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "libswitch/tensor/tensor.h"

namespace sw {

/// Sums over one shard's tokens of one layer, in a fixed order and in double.
struct RouterLossTerms {
  int64_t groups = 0, experts = 0;
  int64_t shards = 1;               // equal shards of the step's batch
  std::vector<double> assigned;     // [G, E]: choices counted on e
  std::vector<double> probability;  // [G, E]: Σ probability of the tokens that count
  std::vector<double> weight;       // [G]: w
  double assigned_divisor = 1;      // f = assigned / assigned_divisor
  double probability_divisor = 1;   // P = probability / probability_divisor
  double z_sum = 0;                 // Σ log_z² of the tokens that count
  double z_divisor = 0;             // tokens that count, in all shards together; 0: no z-loss
  bool padding_in_balance = false;  // whether padding counts in P
  bool padding_in_z = false;        // whether padding counts in z
};

/// How the layers of one stack (encoder or decoder) are joined. paper and t5x may also be given the
/// layers of both stacks at once.
enum class LossRule {
  sum_layers,     // paper, Mesh TensorFlow: Σ over layers
  mean_layers,    // t5x: Σ over layers / layers of the whole model (RouterLossConfig::layers)
  concat_layers,  // hf: f and P averaged over the layers as if their tokens were one long row, then
                  // E²·mean over (group, e) of f·P; z the mean over all of them
};

struct RouterLossConfig {
  LossRule rule = LossRule::sum_layers;
  double aux_coefficient = 0.01;  // weight of the balance loss in the training loss
  double z_coefficient = 0;  // weight of the z-loss; 0 in evaluation under mesh and t5x. (Mesh's
                             // weight is its moe_z_loss times the aux coefficient.)
  int64_t layers = 0;        // of mean_layers; 0: the number of layers given
};

/// Weights with which a layer's tokens enter the gradient of the loss, coefficients and divisors
/// applied.
struct RouterLossGradient {
  std::vector<double> d_probability;  // [G, E]
  double d_log_z = 0;
  bool padding_in_balance = false, padding_in_z = false;
};

/// Values are this shard's share: the sum over all shards of a step is the value of the whole
/// batch.
struct RouterLosses {
  double aux = 0;    // balance loss, layers joined, before its coefficient
  double z = 0;      // likewise
  double total = 0;  // aux_coefficient · aux + z_coefficient · z: the term of the training loss
  std::vector<double> layer_aux, layer_z;     // per layer by itself, whatever the rule
  std::vector<RouterLossGradient> gradients;  // per layer, of total
};

/// Throws internal when concat_layers gets layers with different groups or experts.
RouterLosses router_losses(std::span<const RouterLossTerms> layers, const RouterLossConfig& config);

/// Adds d_loss · ∂total/∂probabilities to d_probabilities [N, E] and writes d_log_z [N] (master).
/// The groups are `gradient`'s: N / G consecutive tokens each. log_z [N] master; nonpadding [N] u8
/// or undefined.
void router_losses_backward(const RouterLossGradient& gradient, double d_loss, const Tensor& log_z,
                            const Tensor& nonpadding, Tensor& d_probabilities, Tensor& d_log_z);

}  // namespace sw
