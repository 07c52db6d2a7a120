#include "tests/support/allocation_peak.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

// ThreadSanitizer has an operator new of its own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SW_COUNTS_MALLOC 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SW_COUNTS_MALLOC 1
#endif
#endif
#if SW_COUNTS_MALLOC
#include <sanitizer/allocator_interface.h>
#endif

namespace sw::test {
namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> live{0}, peak{0};

void count(int64_t bytes) {
  if (!counting.load(std::memory_order_relaxed)) return;
  const int64_t now = live.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t before = peak.load(std::memory_order_relaxed);
  while (now > before && !peak.compare_exchange_weak(before, now, std::memory_order_relaxed)) {
  }
}

}  // namespace

AllocationPeak::AllocationPeak() {
#if SW_COUNTS_MALLOC
  static const int installed = __sanitizer_install_malloc_and_free_hooks(
      [](const volatile void*, size_t bytes) { count(static_cast<int64_t>(bytes)); },
      [](const volatile void* memory) {
        const void* plain = const_cast<const void*>(memory);
        if (plain == nullptr || __sanitizer_get_ownership(plain) == 0) return;
        count(-static_cast<int64_t>(__sanitizer_get_allocated_size(plain)));
      });
  (void)installed;
#endif
  live = 0, peak = 0;
  counting = true;
}
AllocationPeak::~AllocationPeak() { counting = false; }
int64_t AllocationPeak::bytes() const { return peak; }

}  // namespace sw::test

#if !SW_COUNTS_MALLOC
// Sizes are those that the allocator gave, so that both ends count alike. Over-aligned memory is
// not counted.
void* operator new(std::size_t bytes) {
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  sw::test::count(static_cast<int64_t>(malloc_usable_size(memory)));
  return memory;
}
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void operator delete(void* memory) noexcept {
  if (memory != nullptr) sw::test::count(-static_cast<int64_t>(malloc_usable_size(memory)));
  std::free(memory);
}
void operator delete[](void* memory) noexcept { operator delete(memory); }
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
void operator delete[](void* memory, std::size_t) noexcept { operator delete(memory); }
#endif
