// The sum of a step's gradients over shards and ranks, taken while the backward pass goes on.
//
// A parameter's sum follows one binary tree: over the shards of a rank here, then between ranks
// (comm/group.h). As soon as the backward pass of a rank's last shard has left a block behind, the
// gradients of the block's parameters are complete: they are added up and start their way through
// the ranks in buckets, which move on whenever another block is done.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "libswitch/base/sum_tree.h"
#include "libswitch/nn/model.h"

namespace sw {

class GradientReduction final : public GradientListener {
 public:
  /// For one step of `shards` shards on this rank. One shard on one rank costs nothing.
  GradientReduction(Model& model, int64_t shards);
  ~GradientReduction() override;

  /// Takes the gradients of a shard that is not the last out of the model's slots.
  void push();
  /// The next backward pass is that of the last micro-batch of the last shard.
  void expect_last() { last_ = true; }
  /// The gradients of `parameters` are complete, if this is the last pass.
  void complete(std::span<Parameter* const> parameters) override;
  /// Sums what has not been and waits for all ranks: the slots hold the sums over the step.
  void finish();

 private:
  struct Add {
    void operator()(Tensor& left, const Tensor& right) const;
  };
  struct Bucket {
    Group* group = nullptr;
    std::vector<Tensor> gradients;
    int64_t bytes = 0;
  };
  void sum_shards(Parameter& parameter);
  void start(Bucket& bucket);

  Model& model_;
  int64_t shards_;
  bool last_ = false;
  std::unordered_map<const Parameter*, size_t> index_;
  std::vector<SumTree<Tensor, Add>> trees_;  // by parameter
  std::vector<bool> complete_;               // by parameter
  Bucket dense_, expert_;
  std::vector<std::unique_ptr<PendingCollective>> pending_;
};

}  // namespace sw
