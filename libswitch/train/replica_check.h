// Whether the ranks that hold the same weights still hold the same bits.
//
// A processor that miscomputes or memory that flips a bit does not announce itself; copies then
// drift apart unnoticed for as long as a run lasts.
#pragma once

#include <string>

#include "libswitch/nn/model.h"

namespace sw {

/// Compares checksums (XXH3) of this rank's weights with those of the ranks that hold the same
/// parts: dense parameters over the data group, expert parameters over the replica group, and what
/// the model axis does not cut over the model group too. Called by all ranks of the model's mesh
/// after `step` steps; `host` is this rank's. Throws replicas, with the same message on all ranks,
/// which names parameters, ranks and hosts; where most copies agree, the odd ones are named.
void check_replicas(const Model& model, int64_t step, const std::string& host);

}  // namespace sw
