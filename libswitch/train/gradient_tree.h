// The sum of gradients over the shards of a step, and their norm.
#pragma once

#include <cstdint>
#include <vector>

#include "libswitch/base/sum_tree.h"
#include "libswitch/nn/model.h"

namespace sw {

/// Sums the gradients that shards leave in a model's slots. One shard costs no copy.
class GradientTree {
 public:
  /// `shards` leaves will be pushed.
  GradientTree(Model& model, int64_t shards);
  /// Takes the gradients out of the slots as the next leaf.
  void push();
  /// Puts the sums back into the slots.
  void finish();

 private:
  using Gradients = std::vector<Tensor>;  // by parameter; undefined: nothing contributed
  struct Add {
    void operator()(Gradients& left, const Gradients& right) const;
  };
  Model& model_;
  int64_t shards_;
  SumTree<Gradients, Add> tree_{Add{}};
};

/// Square root of the sum of squares of all gradients, in double: over fixed blocks of each
/// parameter (each expert by itself), then over experts in a binary tree, then over parameters in
/// order. A parameter without gradient counts as zero. On a mesh all ranks call it, dense gradients
/// summed over the data ranks: the bits are those of one rank on any data x expert mesh; the model
/// axis cuts the first sums, which agree to rounding.
double gradient_norm(const Model& model);

}  // namespace sw
