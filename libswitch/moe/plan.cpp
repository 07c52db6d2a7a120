#include "libswitch/moe/plan.h"

#include <algorithm>
#include <limits>

#include "libswitch/base/parallel.h"

namespace sw {
namespace {

void check_sizes(const RoutingPlan& plan) {
  SW_CHECK(
      plan.tokens >= 1 && plan.experts >= 1 && plan.choices >= 1 && plan.groups >= 1 &&
          plan.groups * plan.group_size == plan.tokens && plan.capacity >= 0,
      internal,
      "routing plan: {} tokens, {} experts, {} choices, {} groups of {} and capacity {} do not "
      "fit together",
      plan.tokens, plan.experts, plan.choices, plan.groups, plan.group_size, plan.capacity);
  SW_CHECK(plan.tokens <= std::numeric_limits<int32_t>::max() / plan.choices, usage,
           "routing plan: {} tokens with {} choices each exceed the 2^31 rows of a shard; use more "
           "shards or a smaller batch",
           plan.tokens, plan.choices);
  const Shape shape{plan.tokens, plan.choices};
  check_tensor("routing plan", "expert", plan.expert, shape, DType::i32);
  check_tensor("routing plan", "slot", plan.slot, shape, DType::i32);
}

}  // namespace

void build_rows(RoutingPlan& plan) {
  check_sizes(plan);
  const int64_t experts = plan.experts, groups = plan.groups;
  const int64_t entries_per_group = plan.group_size * plan.choices;
  const int64_t grain = 32768 / (entries_per_group + experts);
  const int32_t* expert = plan.expert.data<int32_t>();
  const int32_t* slot = plan.slot.data<int32_t>();

  // Kept choices and buffer length (largest slot + 1) per (group, expert).
  std::vector<int32_t> kept(static_cast<size_t>(groups * experts), 0);
  std::vector<int32_t> length(static_cast<size_t>(groups * experts), 0);
  parallel_for(groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      for (int64_t i = g * entries_per_group; i < (g + 1) * entries_per_group; ++i) {
        if (slot[i] < 0) continue;
        SW_CHECK(expert[i] >= 0 && expert[i] < experts && slot[i] < plan.capacity, internal,
                 "routing plan: choice {} of token {} has expert {} of {} and slot {} of {}",
                 i % plan.choices, i / plan.choices, expert[i], experts, slot[i], plan.capacity);
        const int64_t cell = g * experts + expert[i];
        ++kept[cell];
        length[cell] = std::max(length[cell], slot[i] + 1);
      }
    }
  });

  // First row of every (expert, group).
  plan.offsets = Tensor::empty({experts + 1}, DType::i32);
  plan.kept.assign(static_cast<size_t>(experts), 0);
  int32_t* offsets = plan.offsets.data<int32_t>();
  std::vector<int32_t> first(static_cast<size_t>(groups * experts));
  int32_t row = 0;
  for (int64_t e = 0; e < experts; ++e) {
    offsets[e] = row;
    for (int64_t g = 0; g < groups; ++g) {
      first[g * experts + e] = row;
      row += kept[g * experts + e];
    }
    plan.kept[e] = row - offsets[e];
  }
  offsets[experts] = row;
  plan.rows = row;

  plan.row_of = Tensor::empty({plan.tokens, plan.choices}, DType::i32);
  plan.row_token = Tensor::empty({plan.rows}, DType::i32);
  int32_t* row_of = plan.row_of.data<int32_t>();
  int32_t* row_token = plan.row_token.data<int32_t>();
  parallel_for(groups, grain, [&](int64_t begin, int64_t end) {
    // The group's buffers, one after the other: which choice lies in which slot. A slot may be
    // empty (a choice whose gate is exactly 0 holds its slot but is not kept).
    std::vector<int64_t> start(static_cast<size_t>(experts));
    std::vector<int64_t> choice_in_slot;
    for (int64_t g = begin; g < end; ++g) {
      int64_t total = 0;
      for (int64_t e = 0; e < experts; ++e) {
        start[e] = total;
        total += length[g * experts + e];
      }
      choice_in_slot.assign(static_cast<size_t>(total), -1);
      for (int64_t i = g * entries_per_group; i < (g + 1) * entries_per_group; ++i) {
        row_of[i] = -1;
        if (slot[i] < 0) continue;
        int64_t& place = choice_in_slot[start[expert[i]] + slot[i]];
        SW_CHECK(place < 0, internal,
                 "routing plan: tokens {} and {} share slot {} of expert {} in group {}",
                 place / plan.choices, i / plan.choices, slot[i], expert[i], g);
        place = i;
      }
      for (int64_t e = 0; e < experts; ++e) {
        int32_t next = first[g * experts + e];
        for (int64_t s = 0; s < length[g * experts + e]; ++s) {
          const int64_t i = choice_in_slot[start[e] + s];
          if (i < 0) continue;
          row_of[i] = next;
          row_token[next++] = static_cast<int32_t>(i / plan.choices);
        }
      }
    }
  });
}

void check_plan(const RoutingPlan& plan) {
  check_sizes(plan);
  const Shape shape{plan.tokens, plan.choices};
  check_tensor("routing plan", "gate", plan.gate, shape, plan.gate.dtype());
  check_tensor("routing plan", "row_of", plan.row_of, shape, DType::i32);
  check_tensor("routing plan", "row_token", plan.row_token, {plan.rows}, DType::i32);
  check_tensor("routing plan", "offsets", plan.offsets, {plan.experts + 1}, DType::i32);
  SW_CHECK(is_floating(plan.gate.dtype()), internal, "routing plan: gates are {}",
           dtype_name(plan.gate.dtype()));

  // Rebuilding from expert and slot checks ranges and uniqueness; the maps must come out the same.
  RoutingPlan again = plan;
  build_rows(again);
  const auto same = [](const Tensor& a, const Tensor& b) {
    return std::equal(a.data<int32_t>(), a.data<int32_t>() + a.elements(), b.data<int32_t>());
  };
  SW_CHECK(again.rows == plan.rows && again.kept == plan.kept && same(again.row_of, plan.row_of) &&
               same(again.row_token, plan.row_token) && same(again.offsets, plan.offsets),
           internal, "routing plan: rows do not follow from experts and slots");

  const std::vector<double> gate = plan.gate.to_vector();
  const int32_t* expert = plan.expert.data<int32_t>();
  const int32_t* row_of = plan.row_of.data<int32_t>();
  for (int64_t i = 0; i < plan.tokens * plan.choices; ++i) {
    SW_CHECK(expert[i] >= 0 || gate[i] == 0, internal,
             "routing plan: choice {} of token {} has gate {} but no expert", i % plan.choices,
             i / plan.choices, gate[i]);
    SW_CHECK(row_of[i] < 0 || gate[i] != 0, internal,
             "routing plan: choice {} of token {} has a row but gate 0", i % plan.choices,
             i / plan.choices);
  }
  int64_t chosen = 0;
  for (const int64_t count : plan.chosen) chosen += count;
  SW_CHECK(static_cast<int64_t>(plan.chosen.size()) == plan.experts && plan.rows <= chosen &&
               plan.dropped_tokens <= plan.routed_tokens && plan.routed_tokens <= plan.tokens,
           internal, "routing plan: counts do not add up: {} chosen, {} kept, {} of {} dropped",
           chosen, plan.rows, plan.dropped_tokens, plan.routed_tokens);
}

}  // namespace sw
