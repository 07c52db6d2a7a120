// Which rank holds the others up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sw {

/// Follows the ranks' busy seconds: what a step took without the time in collectives.
class StragglerWatch {
 public:
  static constexpr double kTolerated = 0.1;  // of the median
  static constexpr int64_t kPatience = 100;  // steps
  static constexpr int64_t kSilence = 1000;  // steps between warnings about one rank

  struct Slowest {
    int64_t rank = 0;
    double gap = 0;  // its busy time over the median, minus 1
  };
  /// Takes one step's busy seconds by rank, and returns the slowest.
  Slowest add(const std::vector<double>& busy);
  /// A rank whose busy time, smoothed over some twenty steps, has been more than kTolerated above
  /// the median for kPatience steps; each rank once in kSilence steps.
  std::optional<Slowest> take_warning();

 private:
  std::vector<double> smoothed_;
  std::vector<int64_t> slow_steps_, silent_until_;
  int64_t steps_ = 0;
};

}  // namespace sw
