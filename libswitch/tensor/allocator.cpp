#include "libswitch/tensor/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "libswitch/base/error.h"

namespace sw {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;

// Sizes are rounded up to at most an eighth more, so that nearby sizes share blocks.
int64_t size_class(int64_t bytes) {
  bytes = std::max(bytes, kAlignment);
  int64_t step = kAlignment;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

class CpuPool {
 public:
  void* take(int64_t bytes) {
    const int64_t size = size_class(bytes);
    std::lock_guard lock(mutex_);
    void* block = nullptr;
    if (auto it = free_.find(size); it != free_.end() && !it->second.empty()) {
      block = it->second.back();
      it->second.pop_back();
      stats_.cached_bytes -= size;
    } else {
      block = from_system(size);
    }
    stats_.in_use_bytes += size;
    stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.in_use_bytes);
    return block;
  }

  void give(void* block, int64_t bytes) {
    const int64_t size = size_class(bytes);
    std::lock_guard lock(mutex_);
    free_[size].push_back(block);
    stats_.in_use_bytes -= size;
    stats_.cached_bytes += size;
  }

  AllocatorStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak_bytes = stats_.in_use_bytes;
  }

  void trim() {
    std::lock_guard lock(mutex_);
    free_cached();
  }

 private:
  void free_cached() {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) std::free(block);
    }
    free_.clear();
    stats_.cached_bytes = 0;
  }

  void* from_system(int64_t size) {
    const bool huge = size >= kHugePage;
    const auto alignment = static_cast<size_t>(huge ? kHugePage : kAlignment);
    const size_t rounded = (static_cast<size_t>(size) + alignment - 1) / alignment * alignment;
    void* block = std::aligned_alloc(alignment, rounded);
    if (block == nullptr) {
      free_cached();
      block = std::aligned_alloc(alignment, rounded);
    }
    if (block == nullptr) throw std::bad_alloc();
    if (huge) ::madvise(block, rounded, MADV_HUGEPAGE);
    return block;
  }

  std::mutex mutex_;
  std::map<int64_t, std::vector<void*>> free_;
  AllocatorStats stats_;
};

CpuPool& pool() {
  static auto* instance = new CpuPool;  // outlives every static tensor
  return *instance;
}

}  // namespace

void* allocate(int64_t bytes, Device device) {
  SW_CHECK(!device.is_cuda(), device, "{}: this build has no CUDA backend; use --device cpu",
           device.str());
  return pool().take(bytes);
}
void release(void* block, int64_t bytes, Device) { pool().give(block, bytes); }
AllocatorStats allocator_stats(Device) { return pool().stats(); }
void reset_peak(Device) { pool().reset_peak(); }
void trim_cache(Device) { pool().trim(); }

}  // namespace sw
