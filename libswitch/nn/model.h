// The T5 encoder-decoder with Switch layers (Raffel et al. 2020; Fedus et al. 2022).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/kernels/cross_entropy.h"
#include "libswitch/moe/statistics.h"
#include "libswitch/nn/layers.h"

namespace sw {

/// Which part of a forward pass is run again in the backward pass instead of being kept.
enum class Recompute {
  none,
  layer,  // each sublayer from its normed input
  full,   // each block from its residual input
};
Recompute recompute_from(const std::string& name);

/// Stands in for the cross-entropy at the end of the decoder: hidden [B·T, D], the output table,
/// targets [B·T] (-1: none), and the parameters that cross-entropy would have.
using LossHead = std::function<kernels::CrossEntropySums(
    Context&, const Var& hidden, const Var& table, const Tensor& targets,
    const kernels::CrossEntropyParams& params)>;

struct ForwardOptions {
  Recompute recompute = Recompute::none;
  bool want_logits = false;      // keep all logits (tests, tools)
  LossHead loss_head = {};       // default: cross-entropy with the targets
  double router_loss_scale = 1;  // of the router losses within the loss
};

/// What one shard contributed to the step; losses are shares of the whole batch's (they add up over
/// shards).
struct ForwardResult {
  double loss = 0;           // cross-entropy with z-loss and smoothing, plus weighted router losses
  double cross_entropy = 0;  // without output z-loss, over the loss denominator
  double aux_loss = 0, router_z_loss = 0;  // weighted as in `loss`
  /// Of a student: its cross-entropy with the teacher's distribution and the teacher's own with the
  /// labels, both at the temperature and over the loss denominator; 0 without a teacher.
  double soft_cross_entropy = 0, teacher_cross_entropy = 0;
  kernels::CrossEntropySums sums;
  struct Layer {
    std::string name;  // "encoder/block_001"
    std::shared_ptr<const ops::Routing> routing;
    double aux = 0, z = 0;  // this layer's losses by itself, unweighted
  };
  std::vector<Layer> layers;  // sparse layers, encoder first
  double encoder_aux = 0, encoder_z = 0, decoder_aux = 0,
         decoder_z = 0;  // joined by stack, unweighted
  Tensor logits;         // [B·T, V] master when wanted
};

class Model {
 public:
  /// Allocates this rank's part of all parameters (contents undefined until initialize or load).
  /// `mesh` must outlive the model. Throws usage when it does not divide a dimension.
  Model(const ModelConfig& config, DType compute, Device device = {},
        const Mesh& mesh = single_mesh());
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return config_; }
  DType compute() const { return compute_; }
  const Mesh& mesh() const { return *mesh_; }
  std::vector<std::unique_ptr<Parameter>>& parameters() { return parameters_; }
  const std::vector<std::unique_ptr<Parameter>>& parameters() const { return parameters_; }
  /// The parameter of that name, or null.
  Parameter* find(const std::string& name) const;
  /// Draws all initial weights from (seed, name, index).
  void initialize(uint64_t seed);
  /// Forgets all gradients (their memory is kept).
  void clear_gradients();

  /// Runs one shard. With a tape in `context` everything is recorded with the gradient of
  /// result.loss as its root: the caller then runs tape->backward().
  ForwardResult forward(Context& context, const ModelInput& input,
                        const ForwardOptions& options = {}) const;

  /// The decoder's output for one shard, [B·T, D], which the output table is applied to.
  Var decode(Context& context, const ModelInput& input) const;
  /// logits = logit_scale · decode() · output_tableᵀ.
  const Parameter& output_table() const { return head_ != nullptr ? *head_ : *embedding_; }
  double logit_scale() const;

 private:
  struct Block {
    AttentionLayer self;
    AttentionLayer cross;  // decoder only
    FeedForwardLayer dense;
    SwitchLayer sparse;
    bool is_sparse = false;
    std::vector<Parameter*> parameters;  // that nothing outside the block uses
  };
  struct Stack {
    bool decoder = false;
    std::string name;
    std::vector<Block> blocks;
    Parameter* relative_bias = nullptr;
    Parameter* final_norm = nullptr;
    uint64_t ordinal = 0;  // of its embedding and final dropout
  };
  struct StackOutput {
    Var hidden;  // [N, D] normed
    std::vector<std::shared_ptr<ops::Routing>> routings;
  };
  Parameter* require(const std::string& name) const;
  AttentionLayer attention_layer(const std::string& prefix);
  Block make_block(const std::string& prefix, bool decoder, bool sparse);
  Stack make_stack(bool decoder);
  StackOutput run_stack(Context& context, const Stack& stack, const ModelInput& input,
                        const Var& encoded, const ForwardOptions& options) const;
  void add_router_losses(Context& context, const StackOutput& encoder, const StackOutput& decoder,
                         double scale, ForwardResult& result) const;

  ModelConfig config_;
  DType compute_;
  Device device_;
  const Mesh* mesh_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::map<std::string, Parameter*> by_name_;
  std::unique_ptr<Router> router_;
  uint64_t ordinals_ = 0;
  Parameter* embedding_ = nullptr;
  Parameter* head_ = nullptr;  // null when tied
  Stack encoder_, decoder_;
};

/// Statistics of the sparse layers of one shard, by layer.
std::vector<RouterStatistics> layer_statistics(const Model& model, const ForwardResult& result);

}  // namespace sw
