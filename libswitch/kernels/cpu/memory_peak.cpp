#include "libswitch/kernels/cpu/memory_peak.h"

#include <algorithm>

#include "libswitch/base/timer.h"
#include "libswitch/kernels/elementwise.h"

namespace sw::kernels::cpu {

double measure_memory_rate(double seconds) {
  constexpr int64_t kElements = int64_t{1} << 24;  // 64 MiB each
  Tensor x = Tensor::empty({kElements}, DType::f32), y = Tensor::empty({kElements}, DType::f32);
  fill({}, x, 0.5);
  fill({}, y, 0.25);
  double best = 0;
  const Timer total;
  do {
    const Timer one;
    scale({}, y, x, 0.5, Accum::add);
    best = std::max(best, static_cast<double>(2 * y.bytes() + x.bytes()) / one.seconds());
  } while (total.seconds() < seconds);
  return best * 1e-9;
}

}  // namespace sw::kernels::cpu
