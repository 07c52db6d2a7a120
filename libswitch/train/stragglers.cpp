#include "libswitch/train/stragglers.h"

#include <algorithm>

namespace sw {
namespace {

constexpr double kSmoothing = 0.95;

// The lower middle, so that of two ranks the slower one stands out.
double median(std::vector<double> values) {
  const auto middle = values.begin() + (std::ssize(values) - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double gap(double value, double median) { return median > 0 ? value / median - 1 : 0.0; }

}  // namespace

StragglerWatch::Slowest StragglerWatch::add(const std::vector<double>& busy) {
  const size_t ranks = busy.size();
  if (smoothed_.size() != ranks) {
    smoothed_ = busy;
    slow_steps_.assign(ranks, 0);
    silent_until_.assign(ranks, 0);
  }
  ++steps_;
  for (size_t r = 0; r < ranks; ++r) {
    smoothed_[r] = kSmoothing * smoothed_[r] + (1 - kSmoothing) * busy[r];
  }
  const double middle = median(smoothed_);
  for (size_t r = 0; r < ranks; ++r) {
    slow_steps_[r] = gap(smoothed_[r], middle) > kTolerated ? slow_steps_[r] + 1 : 0;
  }
  const auto slowest = std::max_element(busy.begin(), busy.end());
  return {slowest - busy.begin(), gap(*slowest, median(busy))};
}

std::optional<StragglerWatch::Slowest> StragglerWatch::take_warning() {
  for (size_t r = 0; r < smoothed_.size(); ++r) {
    if (slow_steps_[r] < kPatience || steps_ < silent_until_[r]) continue;
    silent_until_[r] = steps_ + kSilence;
    return Slowest{static_cast<int64_t>(r), gap(smoothed_[r], median(smoothed_))};
  }
  return {};
}

}  // namespace sw
