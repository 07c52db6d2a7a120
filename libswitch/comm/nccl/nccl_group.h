// One group over NCCL. This header does without NCCL's own.
#pragma once

#include <memory>

#include "libswitch/comm/nccl/nccl_world.h"

namespace sw {

/// `host` has the same members; all of them call this together. `trace` is the rank's.
std::unique_ptr<Group> make_nccl_group(std::unique_ptr<Group> host, CommTrace& trace, Device device,
                                       DeviceReduction reduction);
/// The same over a group that somebody else owns.
std::unique_ptr<Group> make_nccl_group(Group& host, CommTrace& trace, Device device,
                                       DeviceReduction reduction);

}  // namespace sw
