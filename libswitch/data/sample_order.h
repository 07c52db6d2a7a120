// The order of samples as pure functions of (data, seed, epoch, ordinal): a permutation that can be
// evaluated at any index, and a schedule that mixes sources.
#pragma once

#include <cstdint>
#include <vector>

#include "libswitch/base/rng.h"

namespace sw {

/// A pseudo-random permutation of [0, n): a Feistel network over the next power of four, walking
/// cycles that leave the range. Nothing is stored, so that any index of any epoch costs the same.
class FeistelPermutation {
 public:
  FeistelPermutation(uint64_t n, RngKey key);
  uint64_t size() const { return n_; }
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t n_;
  RngKey key_;
  int half_bits_ = 1;
};

/// Interleaves sources so that after every sample each has been drawn as close to its weight as
/// greedy choice gets (the source with the largest deficit is next; ties go to the first). Weights
/// are rounded to parts of 65,536, after which the choice repeats, so that the state after any
/// number of samples is known without replaying them.
class MixSchedule {
 public:
  /// One positive finite weight per source, at most 4096 sources; throws usage.
  explicit MixSchedule(const std::vector<double>& weights);

  struct Draw {
    int64_t source = 0;
    uint64_t ordinal = 0;  // how many samples the source gave before
  };
  Draw operator()(uint64_t ordinal) const;
  /// Draws of each source per period.
  const std::vector<uint32_t>& parts() const { return parts_; }
  uint64_t period() const { return source_.size(); }

 private:
  std::vector<uint32_t> parts_;
  std::vector<uint16_t> source_;  // of each place in the period
  std::vector<uint32_t> rank_;    // draws of that source before the place, in the period
};

}  // namespace sw
