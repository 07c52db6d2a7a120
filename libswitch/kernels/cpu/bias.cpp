#include "libswitch/kernels/bias.h"

#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {

void add_bias(const Stream&, Tensor& y, const Tensor& x, const Tensor& bias) {
  with_master("add_bias", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t width = x.size(1);
    const T* in = x.data<T>();
    const T* b = bias.data<T>();
    T* out = y.data<T>();
    parallel_for(x.size(0), row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t e = 0; e < width; ++e) out[n * width + e] = in[n * width + e] + b[e];
      }
    });
  });
}

void bias_gradient(const Stream&, Tensor& d_bias, Accum accum, const Tensor& d_y) {
  with_master("bias_gradient", d_y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t rows = d_y.size(0), width = d_y.size(1), grain = row_grain(width);
    const int64_t blocks = (rows + grain - 1) / grain;
    const T* d = d_y.data<T>();
    std::vector<T> sums(static_cast<size_t>(blocks * width), T(0));
    parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
      T* sum = sums.data() + begin / grain * width;
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t e = 0; e < width; ++e) sum[e] += d[n * width + e];
      }
    });
    T* out = d_bias.data<T>();
    for (int64_t e = 0; e < width; ++e) {
      T total = accum == Accum::add ? out[e] : T(0);
      for (int64_t block = 0; block < blocks; ++block) {
        total += sums[static_cast<size_t>(block * width + e)];
      }
      out[e] = total;
    }
  });
}

}  // namespace sw::kernels::cpu
