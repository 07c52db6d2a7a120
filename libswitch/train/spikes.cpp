#include "libswitch/train/spikes.h"

#include <fmt/format.h>

#include <cmath>

namespace sw {
namespace {

constexpr double kSmoothing = 0.98;

}  // namespace

std::string SpikeWatch::spike(double loss, double norm) const {
  if (state_.steps < kSteps) return "";
  const double deviation = std::sqrt(state_.loss_variance);
  const double bound = state_.loss_mean + kDeviations * deviation;
  if (loss > bound) {
    return fmt::format("loss {:.4g} is far above its mean {:.4g} (standard deviation {:.2g})", loss,
                       state_.loss_mean, deviation);
  }
  if (norm > kTimesNorm * state_.norm_mean) {
    return fmt::format("gradient norm {:.4g} is {:.0f} times its mean {:.4g}", norm,
                       norm / state_.norm_mean, state_.norm_mean);
  }
  return "";
}

void SpikeWatch::add(double loss, double norm) {
  SpikeState& s = state_;
  if (s.steps == 0) s.loss_mean = loss, s.norm_mean = norm;
  const double deviation = loss - s.loss_mean;
  s.loss_mean += (1 - kSmoothing) * deviation;
  s.loss_variance = kSmoothing * (s.loss_variance + (1 - kSmoothing) * deviation * deviation);
  s.norm_mean += (1 - kSmoothing) * (norm - s.norm_mean);
  ++s.steps;
}

}  // namespace sw
