// How a rank waits for others without taking the core from them.
#pragma once

#include <chrono>

namespace sw {

/// Called between two looks at what is waited for: returns at once at first, then lets other
/// threads run, then sleeps for a sixteenth of the time waited so far, at most a millisecond. So a
/// short wait is answered in microseconds, a long one costs next to nothing, and none is prolonged
/// by more than a sixteenth.
class Backoff {
 public:
  /// `crowded`: there are more ranks than cores here, and spinning would only hold up others.
  explicit Backoff(bool crowded);
  void pause();
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_;
  std::chrono::nanoseconds spin_, yield_;
};

}  // namespace sw
