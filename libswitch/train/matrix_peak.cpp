#include "libswitch/train/matrix_peak.h"

#include <algorithm>

#include "libswitch/base/timer.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/matmul.h"

namespace sw {

double measure_matrix_peak(DType dtype, double seconds) {
  double best = 0;
  const Stream stream;
  // Which size suits a processor best depends on its caches.
  constexpr int64_t kSizes[] = {768, 1536};
  for (const int64_t n : kSizes) {
    Tensor a = Tensor::empty({n, n}, dtype), b = Tensor::empty({n, n}, dtype);
    Tensor c = Tensor::empty({n, n}, dtype);
    kernels::fill(stream, a, 0.5);
    kernels::fill(stream, b, 0.25);
    const Timer total;
    for (int run = 0; run < 3 || total.seconds() < seconds / 2; ++run) {
      const Timer timer;
      kernels::matmul(stream, c, a, kernels::Transpose::no, b, kernels::Transpose::no,
                      Accum::write);
      const double size = static_cast<double>(n);
      if (run > 0) best = std::max(best, 2 * size * size * size / timer.seconds());
    }
  }
  return best;
}

}  // namespace sw
