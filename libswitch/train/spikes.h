// Steps that would do harm: a loss or gradient far outside what the run has seen.
#pragma once

#include <cstdint>
#include <string>

namespace sw {

/// What is done about a step whose loss or gradient jumps. (One that is not finite is always
/// skipped.)
enum class OnSpike {
  warn,      // tell, and learn from it
  skip,      // tell, and do not learn from it
  rollback,  // go back to the last checkpoint and pass over the data since then
  stop,      // end the run without learning from it
};

/// What the run has seen so far; kept in checkpoints, so that a resumed run decides alike.
struct SpikeState {
  int64_t steps = 0;  // that the means hold
  double loss_mean = 0, loss_variance = 0;
  double norm_mean = 0;
  bool operator==(const SpikeState&) const = default;
};

/// A step is a spike when its loss lies more than six standard deviations above the running mean or
/// its gradient norm is more than ten times its running mean. All ranks decide alike, because these
/// are the figures of the whole step.
class SpikeWatch {
 public:
  static constexpr int64_t kSteps = 100;  // before these nothing is known
  static constexpr double kDeviations = 6, kTimesNorm = 10;

  SpikeWatch() = default;
  explicit SpikeWatch(const SpikeState& state) : state_(state) {}

  /// Why such a step is a spike; empty: it is none.
  std::string spike(double loss, double norm) const;
  /// Takes a step into the means. Steps that were skipped do not belong there.
  void add(double loss, double norm);
  const SpikeState& state() const { return state_; }

 private:
  SpikeState state_;
};

}  // namespace sw
