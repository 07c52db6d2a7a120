// What a router decided: who goes where, in which slot, with which weight.
//
// Dispatch, experts and combine know only this plan; a new routing scheme is a new way to fill it.
#pragma once

#include <cstdint>
#include <vector>

#include "libswitch/tensor/tensor.h"

namespace sw {

/// The routing of the N tokens of one shard through one layer of E experts. All tensors on the CPU.
///
/// A group (contiguous tokens, G of them of equal size) is the unit in which capacity binds: every
/// expert takes at most C tokens of each group. "Kept" means that the choice has a slot and a gate
/// other than 0, so that its expert sees the token. Choices are ordered by preference, highest gate
/// first.
struct RoutingPlan {
  int64_t tokens = 0;      // N
  int64_t experts = 0;     // E
  int64_t choices = 1;     // k: experts that may process one token
  int64_t groups = 1;      // G
  int64_t group_size = 0;  // tokens of a group, N / G
  int64_t capacity = 0;    // C: slots per group and expert

  Tensor expert;  // [N, k] i32: the chosen expert, -1: none (padding, no second choice)
  Tensor slot;    // [N, k] i32: place in the expert's buffer of the group, [0, C); -1: not kept
  Tensor gate;    // [N, k] master: weight of the expert's output; 0 where not kept (but see
                  // RouterConfig::dropped_gate)

  // Filled by build_rows: the kept choices as the rows of one compact buffer, expert after expert.
  int64_t rows = 0;  // R: kept choices
  Tensor row_of;     // [N, k] i32: the choice's row, -1: not kept
  Tensor row_token;  // [R] i32: the row's token
  Tensor offsets;    // [E+1] i32: expert e owns the rows [offsets[e], offsets[e+1]), ordered by
                     // (group, slot)

  // Counts over the shard, padding that is not routed left out.
  int64_t routed_tokens = 0;    // tokens that were to be routed
  int64_t dropped_tokens = 0;   // of these, tokens that no expert processes
  std::vector<int64_t> chosen;  // [E]: choices of the router before capacity
  std::vector<int64_t> kept;    // [E]: rows
};

/// Fills rows, row_of, row_token, offsets, kept from expert and slot. Throws internal when two
/// choices share a slot or an index is out of range.
void build_rows(RoutingPlan& plan);

/// Throws internal unless the plan is consistent: shapes and dtypes, slots unique per (group,
/// expert) and below the capacity, gates 0 for what has no expert, counts, and row_of and row_token
/// inverse to each other.
void check_plan(const RoutingPlan& plan);

}  // namespace sw
