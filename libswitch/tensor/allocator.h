// Memory of tensors. A training step asks for the same sizes again and again, so freed blocks are
// kept, merged with their neighbours and handed out again; large ones sit on huge pages. Under
// AddressSanitizer each block is an allocation of its own.
#pragma once

#include <cstdint>

#include "libswitch/tensor/device.h"

namespace sw {

/// A block of at least `bytes` bytes, aligned to 64; contents undefined. Throws std::bad_alloc.
void* allocate(int64_t bytes, Device device);
/// Returns a block to the cache; `bytes` as asked for.
void release(void* block, int64_t bytes, Device device);

struct AllocatorStats {
  int64_t in_use_bytes = 0;  // held by tensors
  int64_t peak_bytes = 0;    // largest in_use_bytes since the last reset
  int64_t cached_bytes = 0;  // taken from the system, not in use
};
AllocatorStats allocator_stats(Device device = {});
void reset_peak(Device device = {});
/// Gives cached blocks back to the system.
void trim_cache(Device device = {});

}  // namespace sw
