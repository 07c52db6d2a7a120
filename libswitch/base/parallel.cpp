#include "libswitch/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <cmath>
#include <fstream>
#include <string>

namespace sw {
namespace {

int& thread_count() {
  static int count = usable_cores();
  return count;
}

// CPU quota of the control group (version 2, then 1), or 0 when there is none.
int cgroup_quota() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) {
    return static_cast<int>(std::ceil(std::stod(quota) / period));
  }
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
      v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double q = 0;
  if (v1_quota >> q && v1_period >> period && q > 0 && period > 0)
    return static_cast<int>(std::ceil(q / period));
  return 0;
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  if (const int quota = cgroup_quota(); quota > 0) cores = std::min(cores, quota);
  return std::max(cores, 1);
}

int set_threads(int n) {
  thread_count() = n > 0 ? n : usable_cores();
  omp_set_num_threads(thread_count());  // for oneDNN
  return thread_count();
}

int num_threads() { return thread_count(); }

int& SerialScope::depth() {
  static thread_local int depth = 0;
  return depth;
}

}  // namespace sw
