#include "libswitch/data/sample_order.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "libswitch/base/error.h"

namespace sw {
namespace {

constexpr int kRounds = 6;
constexpr uint32_t kPeriod = 65536;
constexpr size_t kMaxSources = 4096;

}  // namespace

FeistelPermutation::FeistelPermutation(uint64_t n, RngKey key) : n_(n), key_(key) {
  SW_CHECK(n >= 1, internal, "permutation of nothing");
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2);
}

uint64_t FeistelPermutation::operator()(uint64_t index) const {
  SW_CHECK(index < n_, internal, "index {} of a permutation of {}", index, n_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t x = index;
  do {
    uint64_t left = x >> half_bits_, right = x & mask;
    for (int round = 0; round < kRounds; ++round) {
      const auto words = philox(key_, right, static_cast<uint64_t>(round));
      const uint64_t mixed = left ^ ((uint64_t{words[0]} << 32 | words[1]) & mask);
      left = right;
      right = mixed;
    }
    x = left << half_bits_ | right;
  } while (x >= n_);
  return x;
}

MixSchedule::MixSchedule(const std::vector<double>& weights) {
  SW_CHECK(!weights.empty() && weights.size() <= kMaxSources, usage,
           "a mixture of {} sources; expected 1 to {}", weights.size(), kMaxSources);
  for (const double w : weights) {
    SW_CHECK(std::isfinite(w) && w > 0, usage, "weight {} of a source is not positive", w);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  // Largest remainders, at least one part each.
  std::vector<double> exact;
  int64_t left = kPeriod;
  for (const double w : weights) {
    exact.push_back(w / total * kPeriod);
    parts_.push_back(std::max<uint32_t>(1, static_cast<uint32_t>(exact.back())));
    left -= parts_.back();
  }
  while (left != 0) {
    const int64_t step = left > 0 ? 1 : -1;
    size_t best = parts_.size();
    double best_gain = 0;
    for (size_t s = 0; s < parts_.size(); ++s) {
      if (step < 0 && parts_[s] == 1) continue;
      const double gain = static_cast<double>(step) * (exact[s] - parts_[s]);
      if (best == parts_.size() || gain > best_gain) best = s, best_gain = gain;
    }
    parts_[best] = static_cast<uint32_t>(parts_[best] + step);
    left -= step;
  }
  uint32_t divisor = kPeriod;
  for (const uint32_t part : parts_) divisor = std::gcd(divisor, part);
  for (uint32_t& part : parts_) part /= divisor;
  const uint32_t period = kPeriod / divisor;
  // Deficits in units of 1 / period: they return to zero after one period.
  std::vector<int64_t> deficit(parts_.size(), 0);
  std::vector<uint32_t> drawn(parts_.size(), 0);
  source_.reserve(period);
  rank_.reserve(period);
  for (uint32_t i = 0; i < period; ++i) {
    size_t best = 0;
    for (size_t s = 0; s < parts_.size(); ++s) {
      deficit[s] += parts_[s];
      if (deficit[s] > deficit[best]) best = s;
    }
    deficit[best] -= period;
    source_.push_back(static_cast<uint16_t>(best));
    rank_.push_back(drawn[best]++);
  }
}

MixSchedule::Draw MixSchedule::operator()(uint64_t ordinal) const {
  const uint64_t place = ordinal % period();
  const auto source = source_[place];
  return {source, ordinal / period() * parts_[source] + rank_[place]};
}

}  // namespace sw
