// How many tokens an expert takes, and of which group of tokens.
#pragma once

#include <cstdint>

#include "libswitch/moe/router_config.h"

namespace sw {

/// How n tokens of one shard are cut: groups · size = tokens.
struct GroupSplit {
  int64_t groups = 1;
  int64_t size = 0;
};

/// Groups of at most about `max_group_size` tokens. Over a step's `shards` equal shards of `tokens`
/// tokens each, the number of groups is the smallest number that is at least floor(tokens · shards
/// / max_group_size), a multiple of shards, and a divisor of tokens · shards (Mesh TensorFlow,
/// moe._split_into_groups with shards as the data mesh); returned for one shard. A group may exceed
/// the maximum by the rounding down. Throws usage for sizes below 1.
GroupSplit split_into_groups(int64_t tokens, int64_t shards, int64_t max_group_size);

/// Slots per (group, expert) for groups of `group_size` tokens, by config.capacity_rule.
int64_t expert_capacity(const RouterConfig& config, int64_t group_size, bool training);

}  // namespace sw
