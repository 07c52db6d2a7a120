// Experts on other ranks: rows travel to the rank that holds their expert and back (Fedus et al.
// 2022, section 5.4), and an expert's gradient is formed by the rank it came from.
//
// Rows arrive ordered by (source rank, expert, place in the source's plan): the rows of each source
// are what a single rank would have multiplied for that shard, in its order, so that products and
// weight gradients have the same bits on any number of ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "libswitch/comm/group.h"
#include "libswitch/moe/plan.h"
#include "libswitch/tape/context.h"
#include "libswitch/tape/parameter.h"

namespace sw {

/// How the rows of one shard's plan and those of the other ranks' plans lie over an expert group of
/// X ranks, each holding E/X experts.
struct ExpertExchange {
  std::vector<int64_t> send_rows;     // [X]: of this rank's plan, for the experts of each rank
  std::vector<int64_t> receive_rows;  // [X]: from each rank, for this rank's experts
  /// [X] of [E/X + 1] i32: where each expert's rows begin among those of one source.
  std::vector<Tensor> offsets;
  int64_t rows = 0;  // received in all
};

/// Tells every rank of `group` how many rows it will get: one all-to-all of E counts.
ExpertExchange exchange_counts(Group& group, const RoutingPlan& plan);

namespace ops {

/// rows [R, D] of this rank's plan, in its order -> [exchange.rows, D] for this rank's experts.
Var send_to_experts(Context& context, const Var& rows, const ExpertExchange& exchange);
/// Back: [exchange.rows, D] -> [R, D].
Var return_from_experts(Context& context, const Var& rows, const ExpertExchange& exchange);

/// The received rows [exchange.rows, K] times their experts' matrices w [E/X, K, N]. The gradient
/// of w is summed over sources and shards by context.expert_gradients.
Var exchanged_expert_linear(Context& context, const Var& x, const Var& w,
                            const ExpertExchange& exchange);

}  // namespace ops

/// Gradients of expert weights whose rows come from several ranks: one leaf per source rank and
/// local shard, summed in canonical order. A source's shards are neighbouring leaves, but they are
/// seen one after the other over all sources; so operands are kept until the last pass of the step
/// and multiplied then. With one shard a rank that is at once.
class ExpertGradients {
 public:
  /// `shards` per rank, each of `accumulate` micro-batches.
  ExpertGradients(int64_t shards, int64_t accumulate) : shards_(shards), accumulate_(accumulate) {}
  ~ExpertGradients();

  /// Takes part in the gradient that gathers in `slot`, from x [R, K] and d_y [R, N]; the last
  /// micro-batch of the last shard puts the sum into the slot.
  void add(const Stream& stream, const GradientSlotPtr& slot, const Tensor& x, const Tensor& d_y,
           const std::vector<Tensor>& offsets);

 private:
  struct Operands {
    Tensor x, d_y;
    std::vector<Tensor> offsets;
  };
  struct Pending {
    GradientSlotPtr slot;
    std::vector<Operands> passes;
  };
  void form(const Stream& stream, Pending& pending) const;

  int64_t shards_, accumulate_;
  std::vector<Pending> pending_;
};

}  // namespace sw
