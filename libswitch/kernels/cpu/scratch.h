// Working memory of a kernel that lives as long as its thread, so that a kernel in its steady state
// allocates nothing.
#pragma once

#include <cstdint>

#include "libswitch/tensor/allocator.h"

namespace sw::kernels::cpu {

/// A buffer that only grows. Declare one as `static thread_local` for each use.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { release_block(); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// At least `count` elements of T, aligned to 64 bytes, contents undefined; valid until the next
  /// call.
  template <class T>
  T* get(int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (bytes > bytes_) {
      release_block();
      block_ = allocate(bytes, Device{});
      bytes_ = bytes;
    }
    return static_cast<T*>(block_);
  }

 private:
  void release_block() {
    if (block_ != nullptr) release(block_, bytes_, Device{});
    block_ = nullptr;
    bytes_ = 0;
  }
  void* block_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace sw::kernels::cpu
