// What a layer's router did, in a form that can be summed over shards, steps and ranks.
//
// Counts are integers and sums doubles; merge in a fixed order gives the same bits on any mesh.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "libswitch/moe/plan.h"
#include "libswitch/moe/router.h"

namespace sw {

struct RouterStatistics {
  std::string name;     // of the layer, "encoder.block_001"
  int64_t experts = 0;  // E

  // Sums over what was observed. Padding is left out unless it was routed.
  int64_t tokens = 0;               // tokens that were to be routed
  int64_t dropped_tokens = 0;       // of these, tokens that no expert processed
  std::vector<int64_t> chosen;      // [E]: choices before capacity
  std::vector<int64_t> kept;        // [E]: choices that an expert processed
  int64_t slots = 0;                // capacity · groups · E: what the experts could have taken
  int64_t capacity = 0;             // largest C seen
  double gate_sum = 0;              // Σ gate of the kept choices
  double entropy_sum = 0;           // Σ over tokens of the entropy of their probabilities, nats
  std::vector<double> probability;  // [E]: Σ probability
  double aux_sum = 0, z_sum = 0;  // Σ losses of this layer by itself, and the weight of those sums
  double loss_weight = 0;

  /// Adds `other` (of the same layer; an empty one takes over name and size). Throws internal for
  /// another number of experts.
  void merge(const RouterStatistics& other);
  /// The layer's RouterLosses::layer_aux and layer_z, which are one shard's share: weight 1/shards.
  void add_losses(double aux, double z, double weight = 1.0);

  /// Share of the choices on expert e before capacity; 0 when nothing was observed.
  double load(int64_t expert) const;
  /// Largest load over the mean load; 1 is even, E is collapsed.
  double max_over_mean() const;
  /// Entropy of the load over ln E; 1 is even, 0 collapsed; 1 for a single expert.
  double load_entropy() const;
  /// Experts whose load is below `share` of an even load, experts without any choice included.
  int64_t dead(double share = 0.01) const;
  double dropped_share() const;
  /// Share of the slots that were filled.
  double capacity_use() const;
  /// Mean gate of the kept choices (router confidence).
  double confidence() const;
  /// Mean entropy of a token's probabilities over ln E.
  double token_entropy() const;
  double aux() const;
  double z() const;
};

/// Of one layer and one shard.
RouterStatistics router_statistics(const std::string& name, const RouterInput& input,
                                   const RoutingPlan& plan, PaddingRule padding_rule);

/// {"name", "experts", "tokens", "load", "max_over_mean", "entropy", "dead", "dropped_share",
/// "capacity_use", "confidence", "token_entropy", "aux_loss", "z_loss"}.
nlohmann::json to_json(const RouterStatistics& statistics);

}  // namespace sw
