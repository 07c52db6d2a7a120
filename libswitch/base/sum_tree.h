// Sums over the shards of a step in one binary tree, whatever loop or rank produced the shards.
//
// Shards 0 and 1 are added, then 2 and 3, then both pairs, and so on: ((0+1)+(2+3))+((4+5)+(6+7)).
// Like a binary counter this needs one buffer per level and no more, and 2^k neighbouring shards
// that one rank summed are a subtree that a reduction between ranks can go on with (comm/group.h).
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

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

}  // namespace sw
