// How many threads a rank may keep busy.
#pragma once

#include "libswitch/comm/group.h"

namespace sw {

/// This rank's share of the cores it may use: all of them where the launcher bound it to cores of
/// its own, else an equal share among the ranks of this machine with the same cores; at least 1.
/// A collective of the world.
int rank_threads(World& world);

}  // namespace sw
