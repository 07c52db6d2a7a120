#include "libswitch/comm/rank_threads.h"

#include <sched.h>

#include <algorithm>

#include "libswitch/base/parallel.h"

namespace sw {

int rank_threads(World& world) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  ::sched_getaffinity(0, sizeof cores, &cores);
  const std::string own =
      world.host() + '\0' + std::string(reinterpret_cast<const char*>(&cores), sizeof cores);
  const auto all = world.group().all_gather_bytes(own);
  const auto sharing = std::count(all.begin(), all.end(), own);
  return std::max(1, usable_cores() / static_cast<int>(sharing));
}

}  // namespace sw
