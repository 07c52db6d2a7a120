// Keeps oneDNN in the calling thread: it takes one thread inside a parallel region, and
// omp_get_max_threads() outside.
#pragma once

#include <omp.h>

namespace sw::kernels::cpu {

class OneThread {
 public:
  OneThread() : before_(omp_in_parallel() ? 0 : omp_get_max_threads()) {
    if (before_ > 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ > 1) omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace sw::kernels::cpu
