// Copies between a device and the host, for messages that pass through the host.
#pragma once

#include <cstdint>

#include "libswitch/tensor/device.h"

namespace sw {

/// Copies `bytes` bytes, either side in host memory or on a GPU; returns when they are there and
/// after all work queued on the GPU's default stream. Throws device when the build has no CUDA.
void copy_between(void* to, Device to_device, const void* from, Device from_device, int64_t bytes);

}  // namespace sw
