#include "libswitch/kernels/columns.h"

#include <cstring>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {

void copy_columns(const Stream&, Tensor& y, int64_t y_column, const Tensor& x, int64_t x_column,
                  int64_t columns) {
  SW_CHECK(x.defined() && y.defined() && x.rank() == 2 && y.rank() == 2 && x.size(0) == y.size(0) &&
               x.dtype() == y.dtype(),
           internal, "copy_columns: x [N, ..] and y [N, ..] of one dtype expected");
  SW_CHECK(columns >= 0 && x_column >= 0 && y_column >= 0 && x_column + columns <= x.size(1) &&
               y_column + columns <= y.size(1),
           internal, "copy_columns: {} columns from {} of {} to {} of {}", columns, x_column,
           x.shape().str(), y_column, y.shape().str());
  const int64_t element = element_bytes(x.dtype());
  const int64_t x_stride = x.size(1) * element, y_stride = y.size(1) * element;
  const char* from = static_cast<const char*>(x.raw()) + x_column * element;
  char* to = static_cast<char*>(y.raw()) + y_column * element;
  const auto bytes = static_cast<size_t>(columns * element);
  parallel_for(x.size(0), row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      std::memcpy(to + n * y_stride, from + n * x_stride, bytes);
    }
  });
}

}  // namespace sw::kernels::cpu
