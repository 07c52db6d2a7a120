// Memory of a training step over its course, before anything is allocated.
#pragma once

#include <cstdint>

#include "libswitch/train/estimate.h"

namespace sw {

struct StepMemory {
  int64_t gradient_bytes = 0;  // of one set, and what travels between ranks
  int64_t peak_bytes = 0;      // largest sum of gradients, partial sums, activations and scratch
};

/// Of the rank with the most. Follows the passes sublayer by sublayer: activations come in the
/// forward pass, gradients in the backward pass while activations go, so that their largest sums
/// do not meet. What collectives hold is counted as one more copy of the gradients.
StepMemory estimate_step_memory(const TrainingShape& shape);

}  // namespace sw
