// Routers: from probabilities to a RoutingPlan, and from gates' gradients to probabilities'.
//
// A routing scheme is one class derived from Router. It reads the softmax over experts of every
// token, decides, and defines how its gates depend on the probabilities; matrix products, the
// softmax, jitter and autograd are outside. Adding a scheme: one class in a file of its own, one
// RouterKind with its name, one line in make_router, one golden test.
#pragma once

#include <cstdint>
#include <memory>

#include "libswitch/base/rng.h"
#include "libswitch/kernels/kernel.h"
#include "libswitch/moe/capacity.h"
#include "libswitch/moe/losses.h"
#include "libswitch/moe/plan.h"
#include "libswitch/moe/router_config.h"

namespace sw {

/// What a router reads: one shard's tokens of one layer, flattened from [rows, length] row-major.
struct RouterInput {
  Tensor probabilities;          // [N, E] master, rows sum to 1
  Tensor log_z;                  // [N] master: log Σ exp of the logits
  Tensor nonpadding;             // [N] u8, 0: padding; undefined: no padding
  int64_t batch_rows = 1;        // rows of the shard (GroupRule::row); divides N
  int64_t shards = 1;            // equal shards of the step's batch (canonical ranks)
  int64_t nonpadding_total = 0;  // real tokens of all shards together, the denominator of the
                                 // z-loss in mesh; 0: this shard's count times shards
  bool training = false;
  int64_t first_token = 0;  // global index of token 0: random draws are addressed by global index
  RngKey key;               // of the draws (RngPurpose::routing; step, layer)
};

class Router {
 public:
  explicit Router(RouterConfig config) : config_(config) {}
  virtual ~Router() = default;
  const RouterConfig& config() const { return config_; }
  const char* name() const { return router_kind_name(config_.kind); }

  /// Decides. Throws usage for shapes that do not fit the configuration, and diverged when
  /// check_finite_logits does.
  RoutingPlan assign(const RouterInput& input) const;

  /// Sums of the router's losses over this shard, for router_losses. The z-loss is always summed:
  /// in evaluation, where mesh has none, give it coefficient 0.
  RouterLossTerms loss_terms(const RouterInput& input, const RoutingPlan& plan) const;

  /// d_probabilities [N, E] (=, or += with Accum::add) from d_gate [N, k]; gates of choices that
  /// were not kept pass nothing on. Selection, slots and policies carry no gradient.
  virtual void gate_backward(const RoutingPlan& plan, const Tensor& probabilities,
                             const Tensor& d_gate, Tensor& d_probabilities, Accum accum) const = 0;

 protected:
  /// Fills expert, slot, gate and the counts routed_tokens and chosen; sizes are set, the tensors
  /// allocated with expert and slot -1 and gate 0.
  virtual void choose(const RouterInput& input, RoutingPlan& plan) const = 0;
  /// k of the plan.
  virtual int64_t choices() const { return 1; }
  /// Adds to counts [E] the experts on which f counts token n; called only for tokens that count.
  virtual void count_assigned(const RouterInput& input, const RoutingPlan& plan, int64_t n,
                              double* counts) const = 0;
  /// What one token adds to the divisor of f.
  virtual double counted_per_token() const { return 1; }
  /// Whether padding counts in f and P.
  virtual bool padding_in_balance() const { return config_.padding_rule != PaddingRule::excluded; }

 private:
  RouterConfig config_;
};

/// Throws diverged, naming the first token, when log Σ exp of its logits [N] master is not finite.
void check_finite_logits(const Tensor& log_z);

/// The router of `config.kind`, after check_router_config.
std::unique_ptr<Router> make_router(const RouterConfig& config);

}  // namespace sw
