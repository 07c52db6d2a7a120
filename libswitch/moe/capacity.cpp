#include "libswitch/moe/capacity.h"

#include <algorithm>
#include <cmath>

#include "libswitch/base/error.h"

namespace sw {

GroupSplit split_into_groups(int64_t tokens, int64_t shards, int64_t max_group_size) {
  SW_CHECK(tokens >= 1 && shards >= 1 && max_group_size >= 1, usage,
           "routing groups: tokens {}, shards {} and largest group {} must be at least 1", tokens,
           shards, max_group_size);
  // A number of groups that is a multiple of `shards` and divides tokens·shards is, per shard, any
  // divisor of tokens.
  const int64_t wanted = tokens * shards / max_group_size;
  int64_t groups = std::max<int64_t>(1, (wanted + shards - 1) / shards);
  while (tokens % groups != 0) ++groups;
  return {groups, tokens / groups};
}

int64_t expert_capacity(const RouterConfig& config, int64_t group_size, bool training) {
  const double factor = training ? config.capacity_factor_train : config.capacity_factor_eval;
  const double share =
      static_cast<double>(group_size) * factor / static_cast<double>(config.experts);
  switch (config.capacity_rule) {
    case CapacityRule::floor_bounded:
      return std::max(
          static_cast<int64_t>(std::min(std::floor(share), static_cast<double>(group_size))),
          config.min_capacity);
    case CapacityRule::round_half_even:
      // nearbyint rounds halves to even in the default rounding mode, which nobody changes. No
      // token uses an expert twice, so slots beyond the group's tokens stay empty.
      return std::max(static_cast<int64_t>(std::nearbyint(std::min(share, 1e15))),
                      config.min_capacity);
    case CapacityRule::constant: return config.expert_capacity;
    case CapacityRule::unlimited: return group_size;
  }
  fail(ErrorKind::internal, "expert_capacity: unknown rule");
}

}  // namespace sw
