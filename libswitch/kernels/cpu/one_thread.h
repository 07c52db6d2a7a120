// Keeps oneDNN in the calling thread: it would take omp_get_max_threads().
#pragma once

#include <omp.h>

namespace sw::kernels::cpu {

class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) {
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
