// Groups that pass tensors of a GPU by NCCL.
#pragma once

#include <memory>

#include "libswitch/comm/group.h"

namespace sw {

/// How sums of device tensors are taken. canonical: pieces are exchanged and added in the order of
/// comm/group.h, the same bits on any mesh; fast: NCCL's own reductions, whose order depends on the
/// number of ranks and their machines.
enum class DeviceReduction { canonical, fast };

/// A world of the same ranks as `host`, which outlives it and carries what lies in host memory:
/// control values, barriers, the ids of communicators, largest and smallest values. Tensors on
/// `device` go by NCCL, on a stream of each group, ordered after the default stream's work so far
/// and before its later work; the host does not wait. Throws device when NCCL does not come up or
/// the build has none.
std::unique_ptr<World> make_nccl_world(World& host, Device device, DeviceReduction reduction);

}  // namespace sw
