// A sparse layer without training: routing in which a row's result does not depend on its batch
// mates, and experts wherever they are.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "libswitch/generate/weights.h"
#include "libswitch/moe/plan.h"
#include "libswitch/moe/router.h"

namespace sw {

/// Consecutive tokens of one prompt or answer among the rows of a layer.
struct TokenRun {
  uint64_t ordinal = 0;  // of the prompt: draws are keyed by it
  int64_t position = 0;  // of the first token in its sequence
  int64_t count = 0;
};

class SparseLayers {
 public:
  /// use_capacity: experts take no more tokens than the model's rule says, and what is over is
  /// dropped; answers then depend on what is decoded together. Otherwise every token is served.
  /// `seed`: of routers that draw. experts and mesh must outlive it.
  SparseLayers(const ModelConfig& config, DType compute, ExpertSource& experts, const Mesh& mesh,
               bool use_capacity, uint64_t seed);

  /// out [N, D] = the layer's branch for x [N, D] normed, of the tokens in `runs`. `few`: as a step
  /// of decoding does it, in f32 (kernels/few_rows.h); else in x's dtype as training does it. All
  /// ranks of an expert group call it together, each with at least one row.
  void forward(Tensor& out, const DecodingWeights::Block& block, const Tensor& x,
               std::span<const TokenRun> runs, bool decoder, bool few);

 private:
  RoutingPlan route(const DecodingWeights::Block& block, const Tensor& x,
                    std::span<const TokenRun> runs, bool decoder);
  struct Segment {  // rows of one expert
    int64_t begin = 0, end = 0, expert = 0;
  };
  Tensor run_experts(int64_t layer, const Tensor& rows, const std::vector<Segment>& segments,
                     bool few);

  const ModelConfig& config_;
  ExpertSource& experts_;
  const Mesh& mesh_;
  std::unique_ptr<Router> router_;
  bool by_run_ = false;  // every run is routed by itself
  uint64_t seed_ = 0;
};

/// hidden = its activation, in place; times `gate` where that is defined.
void activate(Activation activation, Tensor& hidden, const Tensor& gate);

}  // namespace sw
