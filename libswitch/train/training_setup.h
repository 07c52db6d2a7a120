// What starting a run and planning one have in common.
#pragma once

#include "libswitch/train/training_run.h"

namespace sw {

/// The job's options as the run of `reader` had them.
void adopt(TrainingJob& job, RunContext& context, const CheckpointReader& reader);

/// job.prepare() and the checks that are the same for every job.
PreparedRun prepare_run(TrainingJob& job, int64_t ranks, const CheckpointReader* before);

TrainingShape training_shape(TrainingJob& job, const PreparedRun& prepared);

/// Floating-point operations a second of the matrix products of all ranks together: a short look,
/// repeated at every start.
double measure_peak(World& world, DType dtype);

/// Of this machine, swap included; -1: unknown.
int64_t machine_memory_bytes();

}  // namespace sw
