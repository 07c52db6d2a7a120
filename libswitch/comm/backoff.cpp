#include "libswitch/comm/backoff.h"

#include <algorithm>
#include <thread>

namespace sw {
namespace {

using std::chrono::microseconds;
using std::chrono::nanoseconds;

constexpr nanoseconds kSpin = microseconds(20), kYield = microseconds(200);
constexpr nanoseconds kCrowdedSpin = microseconds(1), kCrowdedYield = microseconds(30);
constexpr nanoseconds kLongestSleep = microseconds(1000);

}  // namespace

Backoff::Backoff(bool crowded)
    : start_(Clock::now()),
      spin_(crowded ? kCrowdedSpin : kSpin),
      yield_(crowded ? kCrowdedYield : kYield) {}

void Backoff::pause() {
  const nanoseconds waited = Clock::now() - start_;
  if (waited < spin_) {
    __builtin_ia32_pause();
  } else if (waited < yield_) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::min(waited / 16, kLongestSleep));
  }
}

double Backoff::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

}  // namespace sw
