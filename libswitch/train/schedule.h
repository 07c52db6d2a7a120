// Learning rate by step.
#pragma once

#include <cstdint>
#include <string>

namespace sw {

struct Schedule {
  enum class Kind {
    rsqrt,     // rate / sqrt(max(step, warmup)): constant until warmup, then inverse square root
    constant,  // rate
    linear,    // rate · (1 - progress), down to rate · final_share
    cosine,    // half a cosine from rate down to rate · final_share
  };
  Kind kind = Kind::rsqrt;
  double rate = 1.0;
  /// rsqrt: length of the constant part (Fedus et al. 2022 and T5: 10,000, which gives 0.01). Other
  /// kinds: the rate rises linearly over this many steps first; 0: it does not.
  int64_t warmup = 10000;
  int64_t total_steps = 0;  // linear, cosine: where the decay ends
  double final_share = 0;   // linear, cosine: share of the rate that is left at the end

  /// Rate of the update numbered `step`, from 0.
  double at(int64_t step) const;
  /// Throws usage naming what does not fit.
  void validate() const;
};

/// "rsqrt", "constant", "linear", "cosine"; throws usage otherwise.
Schedule::Kind schedule_kind(const std::string& name);
const char* schedule_name(Schedule::Kind kind);

}  // namespace sw
