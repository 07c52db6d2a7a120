#include "libswitch/base/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace sw {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number in a file of the control group; unlimited for "max" or no file.
int64_t number_in(const char* path) {
  std::ifstream in(path);
  int64_t value = 0;
  return in >> value ? value : kUnlimited;
}

int64_t of_machine() {
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  int64_t kilobytes = 0;
  while (in >> key >> kilobytes) {
    if (key == "MemAvailable:") return kilobytes * 1024;
    std::getline(in, unit);
  }
  return static_cast<int64_t>(::sysconf(_SC_AVPHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
}

int64_t of_control_group() {
  const int64_t limit = number_in("/sys/fs/cgroup/memory.max");
  if (limit == kUnlimited) return kUnlimited;
  const int64_t used = number_in("/sys/fs/cgroup/memory.current");
  return used == kUnlimited ? limit : limit - used;
}

int64_t of_address_space() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  std::ifstream in("/proc/self/statm");
  int64_t pages = 0;
  in >> pages;
  return static_cast<int64_t>(limit.rlim_cur) - pages * ::sysconf(_SC_PAGESIZE);
}

}  // namespace

int64_t available_memory() {
  return std::max<int64_t>(0, std::min({of_machine(), of_control_group(), of_address_space()}));
}

}  // namespace sw
