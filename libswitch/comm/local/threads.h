// A world of threads in one process: for tests of what runs on many ranks.
#pragma once

#include <functional>

#include "libswitch/comm/group.h"

namespace sw {

/// Runs fn as every rank of a world of `ranks` threads and returns when all have ended. When one
/// throws, the others' waits end with an error, and the first exception is rethrown here.
/// Parallel loops of the process get its cores divided by the ranks while this runs.
void run_ranks(int64_t ranks, const std::function<void(World&)>& fn);

}  // namespace sw
