// What the ranks of a step observed, joined.
#pragma once

#include <string>
#include <vector>

#include "libswitch/comm/group.h"
#include "libswitch/train/step.h"

namespace sw {

/// Adds right, the later shards', to left.
void add_observations(StepResult& left, const StepResult& right);

/// The sum over the ranks of `group` in canonical order: with the sums that the ranks formed over
/// their shards, the same tree as on one rank. A fault of any rank becomes the fault of all, with
/// the rank's name.
void sum_over_ranks(Group& group, StepResult& result);

/// A fault of any rank of `group`, whose results are the same otherwise, becomes the fault of all.
void share_fault(Group& group, StepResult& result);

/// One rank's observations of a step or evaluation batch as bytes, for all_gather_bytes; names of
/// layers and faults are left out.
std::string pack_observations(const StepResult& result);
/// Puts them into `result`, whose layers are already there.
void unpack_observations(const std::string& bytes, StepResult& result);

}  // namespace sw
