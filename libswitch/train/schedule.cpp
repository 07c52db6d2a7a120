#include "libswitch/train/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "libswitch/base/error.h"

namespace sw {
namespace {

constexpr std::array kNames = {"rsqrt", "constant", "linear", "cosine"};

}  // namespace

double Schedule::at(int64_t step) const {
  if (kind == Kind::rsqrt) {
    return rate / std::sqrt(static_cast<double>(std::max<int64_t>({step, warmup, 1})));
  }
  if (step < warmup) {
    return rate * static_cast<double>(step + 1) / static_cast<double>(warmup);
  }
  if (kind == Kind::constant) return rate;
  const double length = static_cast<double>(std::max<int64_t>(total_steps - warmup, 1));
  const double progress = std::min(static_cast<double>(step - warmup) / length, 1.0);
  const double left =
      kind == Kind::linear ? 1.0 - progress : 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return rate * (final_share + (1.0 - final_share) * left);
}

void Schedule::validate() const {
  SW_CHECK(std::isfinite(rate) && rate > 0, usage, "learning rate is {}, expected more than 0",
           rate);
  SW_CHECK(warmup >= 0, usage, "warm-up is {} steps, expected at least 0", warmup);
  SW_CHECK(final_share >= 0 && final_share <= 1, usage,
           "final share of the learning rate is {}, expected 0 to 1", final_share);
  if (kind == Kind::linear || kind == Kind::cosine) {
    SW_CHECK(total_steps > warmup, usage,
             "the {} schedule ends at step {}, within its warm-up of {} steps; give more steps or "
             "a shorter warm-up",
             schedule_name(kind), total_steps, warmup);
  }
}

Schedule::Kind schedule_kind(const std::string& name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<Schedule::Kind>(i);
  }
  fail(ErrorKind::usage,
       "schedule: unknown choice '{}', expected rsqrt, constant, linear, cosine{}", name,
       nearest_hint(name, kNames));
}

const char* schedule_name(Schedule::Kind kind) { return kNames[static_cast<size_t>(kind)]; }

}  // namespace sw
