// Work over the cores with a partition that does not depend on the number of threads, so that
// results do not either: chunks are cut by `grain`, threads take whole chunks, and each chunk is
// computed by one thread.
#pragma once

#include <algorithm>
#include <cstdint>

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

namespace parallel_detail {
using Body = void (*)(const void* fn, int64_t begin, int64_t end);
/// True in a chunk.
bool inside();
/// Runs the chunks on the calling thread and on those workers that come in time.
void run(int64_t n, int64_t grain, Body body, const void* fn);
}  // namespace parallel_detail

/// Calls fn(begin, end) for the chunks [0, grain), [grain, 2 grain), ... of [0, n). Chunks are
/// handed out dynamically; an exception in a chunk is rethrown here after all threads stopped.
/// Nested calls run serially, and so do those of a second thread while the workers are busy.
template <class Fn>
void parallel_for(int64_t n, int64_t grain, const Fn& fn) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (n <= grain || parallel_detail::inside() || num_threads() == 1 || SerialScope::active()) {
    for (int64_t begin = 0; begin < n; begin += grain) fn(begin, std::min(n, begin + grain));
    return;
  }
  parallel_detail::run(
      n, grain,
      [](const void* call, int64_t begin, int64_t end) {
        (*static_cast<const Fn*>(call))(begin, end);
      },
      &fn);
}

}  // namespace sw
