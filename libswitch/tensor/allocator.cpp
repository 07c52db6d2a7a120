#include "libswitch/tensor/allocator.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>

#include "libswitch/base/error.h"
#include "libswitch/tensor/block_pool.h"

// AddressSanitizer sees overruns between blocks of its own allocator only.
#if defined(__SANITIZE_ADDRESS__)
#define SW_POOLED_TENSORS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SW_POOLED_TENSORS 0
#endif
#endif
#ifndef SW_POOLED_TENSORS
#define SW_POOLED_TENSORS 1
#endif

namespace sw {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPage = 4096;
// Small blocks live long among large ones that come and go; apart, they do not cut these up.
constexpr int64_t kSmall = 32 << 10;
constexpr int64_t kSmallRegion = int64_t{1} << 20;
constexpr int64_t kLargeRegion = int64_t{64} << 20;

#if SW_POOLED_TENSORS
class CpuMemory {
 public:
  void* take(int64_t bytes) { return pool(bytes).take(bytes); }
  void give(void* block, int64_t bytes) { pool(bytes).give(block, bytes); }
  void trim() {
    small_.trim();
    large_.trim();
  }
  int64_t in_use() const { return small_.in_use_bytes() + large_.in_use_bytes(); }
  int64_t cached() const { return small_.system_bytes() + large_.system_bytes() - in_use(); }

 private:
  BlockPool& pool(int64_t bytes) { return bytes <= kSmall ? small_ : large_; }
  BlockPool small_{kAlignment, kSmallRegion}, large_{kPage, kLargeRegion};
};
#else
class CpuMemory {
 public:
  void* take(int64_t bytes) {
    void* block = std::aligned_alloc(kAlignment, static_cast<size_t>(rounded(bytes)));
    if (block == nullptr) throw std::bad_alloc();
    in_use_ += rounded(bytes);
    return block;
  }
  void give(void* block, int64_t bytes) {
    std::free(block);
    in_use_ -= rounded(bytes);
  }
  void trim() {}
  int64_t in_use() const { return in_use_; }
  int64_t cached() const { return 0; }

 private:
  static int64_t rounded(int64_t bytes) {
    return (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  }
  int64_t in_use_ = 0;
};
#endif

struct Cpu {
  std::mutex mutex;
  CpuMemory memory;
  int64_t peak = 0;
};

Cpu& cpu() {
  static auto* instance = new Cpu;  // outlives every static tensor
  return *instance;
}

}  // namespace

void* allocate(int64_t bytes, Device device) {
  SW_CHECK(!device.is_cuda(), device, "{}: this build has no CUDA backend; use --device cpu",
           device.str());
  std::lock_guard lock(cpu().mutex);
  void* block = cpu().memory.take(bytes);
  cpu().peak = std::max(cpu().peak, cpu().memory.in_use());
  return block;
}

void release(void* block, int64_t bytes, Device) {
  std::lock_guard lock(cpu().mutex);
  cpu().memory.give(block, bytes);
}

AllocatorStats allocator_stats(Device) {
  std::lock_guard lock(cpu().mutex);
  return {.in_use_bytes = cpu().memory.in_use(),
          .peak_bytes = cpu().peak,
          .cached_bytes = cpu().memory.cached()};
}

void reset_peak(Device) {
  std::lock_guard lock(cpu().mutex);
  cpu().peak = cpu().memory.in_use();
}

void trim_cache(Device) {
  std::lock_guard lock(cpu().mutex);
  cpu().memory.trim();
}

}  // namespace sw
