// Sums over the shards of a step in one binary tree, whatever loop or rank produced the shards.
//
// Shards 0 and 1 are added, then 2 and 3, then both pairs, and so on: ((0+1)+(2+3))+((4+5)+(6+7)).
// Like a binary counter this needs one buffer per level and no more, and 2^k neighbouring shards
// that one rank summed are a subtree that a reduction between ranks can go on with.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "libswitch/nn/model.h"

namespace sw {

/// Sums leaves that arrive in order. `add(left, right)` adds right into left, which then stands for
/// both; left always holds earlier leaves.
template <class T, class Add>
class SumTree {
 public:
  explicit SumTree(Add add) : add_(std::move(add)) {}

  void push(T leaf) {
    size_t level = 0;
    for (uint64_t bits = count_++; bits & 1; bits >>= 1, ++level) leaf = join(level, leaf);
    if (level == levels_.size()) levels_.emplace_back();
    levels_[level] = std::move(leaf);
  }

  /// The sum of all leaves (at least one); the tree is empty afterwards. When their number is no
  /// power of two, what is left over is added from the right.
  T finish() {
    std::optional<T> sum;
    for (size_t level = 0; level < levels_.size(); ++level) {
      if (!levels_[level]) continue;
      sum = sum ? join(level, *sum) : take(level);
    }
    levels_.clear();
    count_ = 0;
    return std::move(*sum);
  }

 private:
  T take(size_t level) {
    T value = std::move(*levels_[level]);
    levels_[level].reset();
    return value;
  }
  T join(size_t level, const T& right) {
    T left = take(level);
    add_(left, right);
    return left;
  }

  Add add_;
  uint64_t count_ = 0;
  std::vector<std::optional<T>> levels_;
};

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
