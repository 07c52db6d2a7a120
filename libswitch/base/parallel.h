// Work over the cores with a partition that does not depend on the number of threads, so that
// results do not either: chunks are cut by `grain`, threads take whole chunks, and each chunk is
// computed by one thread.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

namespace sw {

/// Sets the number of threads for all later parallel work of this process; n <= 0 means all usable
/// cores (the affinity mask and the container's CPU quota respected). Returns the number set.
int set_threads(int n);
int num_threads();
/// Cores this process may use: affinity mask and cgroup quota.
int usable_cores();

/// While one lives, parallel loops of the calling thread run in that thread alone: for work beside
/// the main thread, which must not take its cores.
class SerialScope {
 public:
  SerialScope() { ++depth(); }
  ~SerialScope() { --depth(); }
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;
  static bool active() { return depth() > 0; }

 private:
  static int& depth();
};

/// Calls fn(begin, end) for the chunks [0, grain), [grain, 2 grain), ... of [0, n). Chunks are
/// handed out dynamically; an exception in a chunk is rethrown here after all threads stopped.
/// Nested calls run serially.
template <class Fn>
void parallel_for(int64_t n, int64_t grain, const Fn& fn) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t chunks = (n + grain - 1) / grain;
  if (chunks == 1 || omp_in_parallel() || num_threads() == 1 || SerialScope::active()) {
    for (int64_t c = 0; c < chunks; ++c) fn(c * grain, std::min(n, (c + 1) * grain));
    return;
  }
  std::exception_ptr error;
  std::atomic<bool> failed{false};
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads())
  for (int64_t c = 0; c < chunks; ++c) {
    if (failed.load(std::memory_order_relaxed)) continue;
    try {
      fn(c * grain, std::min(n, (c + 1) * grain));
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace sw
