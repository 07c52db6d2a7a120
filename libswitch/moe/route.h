// Routing as ops: probabilities, plan and gates; dispatch to experts and combination of their
// outputs.
#pragma once

#include <memory>

#include "libswitch/moe/expert_exchange.h"
#include "libswitch/moe/router.h"
#include "libswitch/tape/context.h"

namespace sw::ops {

/// What a layer's router decided and what its losses need; kept for the backward pass, for a
/// recomputing pass and for the statistics of the step.
struct Routing {
  RouterInput input;
  RoutingPlan plan;
  RouterLossTerms loss_terms;
  ExpertExchange exchange;  // empty where every rank has all experts
  /// Set by the model after all layers of a stack ran and before the backward pass (moe/losses.h).
  /// Empty: the router has no loss.
  RouterLossGradient loss_gradient;
};

/// The cast of x [N, D] to master precision, jittered in training: the router's private copy.
/// `first_row` is the global index of row 0.
Var router_input(Context& context, const Var& x, double jitter, uint64_t site, int64_t first_row);

struct Routed {
  std::shared_ptr<Routing> routing;
  Var gate;  // [N, k] master
};
/// Routes by logits [N, E] master. `input` comes with everything but probabilities and log_z. In a
/// recomputing pass the plan of the first pass is taken. Gradient of the logits: through the gates
/// and through the router's losses.
Routed route(Context& context, const Router& router, const Var& logits, RouterInput input);

/// rows [R, D] of the experts, in order of the plan's rows, from x [N, D].
Var dispatch(Context& context, const Var& x, const RoutingPlan& plan);

/// Dropout on the experts' hidden rows in training, else `hidden` itself: [R, F], or this rank's
/// [R, F/M] of M model ranks. A row's mask is keyed by the global index of its token and choice.
/// `first_token` is the global index of token 0.
Var expert_dropout(Context& context, const Var& hidden, double rate, uint64_t site,
                   const Routing& routing, int64_t first_token);

/// y [N, D] = Σ over choices gate · rows; a token without any row gets zeros, or gate · dropped
/// when `dropped` is defined (DroppedGate::kept).
Var combine(Context& context, const Var& rows, const Var& gate, const RoutingPlan& plan,
            const Var& dropped);

}  // namespace sw::ops
