// Stands in for comm/nccl in builds without CUDA or NCCL.
#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/comm/device_copy.h"
#include "libswitch/comm/nccl/nccl_world.h"

namespace sw {

void copy_between(void* to, Device to_device, const void* from, Device from_device, int64_t bytes) {
  SW_CHECK(!to_device.is_cuda() && !from_device.is_cuda(), device,
           "copy from {} to {}: this build has no CUDA or no NCCL; rebuild with both, or use "
           "--device cpu",
           from_device.str(), to_device.str());
  if (bytes > 0 && to != from) std::memmove(to, from, static_cast<size_t>(bytes));
}

std::unique_ptr<World> make_nccl_world(World&, Device device, DeviceReduction) {
  fail(ErrorKind::device,
       "{}: this build has no CUDA or no NCCL; rebuild with both, or use --device cpu",
       device.str());
}

}  // namespace sw
