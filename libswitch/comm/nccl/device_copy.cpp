// Has compiled, but never run on a GPU yet.
#include "libswitch/comm/device_copy.h"

#include <cuda_runtime_api.h>

#include <cstring>

#include "libswitch/base/error.h"

namespace sw {

void copy_between(void* to, Device to_device, const void* from, Device from_device, int64_t bytes) {
  if (bytes == 0 || to == from) return;
  if (!to_device.is_cuda() && !from_device.is_cuda()) {
    std::memmove(to, from, static_cast<size_t>(bytes));
    return;
  }
  const cudaError_t result = cudaMemcpy(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault);
  SW_CHECK(result == cudaSuccess, device, "copy of {} bytes from {} to {}: {}", bytes,
           from_device.str(), to_device.str(), cudaGetErrorString(result));
}

}  // namespace sw
