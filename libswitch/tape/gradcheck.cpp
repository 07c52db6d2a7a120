#include "libswitch/tape/gradcheck.h"

#include <algorithm>
#include <cmath>

namespace sw {

std::string GradientError::str() const {
  return fmt::format("worst relative error {:.3g} at element {}: analytic {:.10g}, numeric {:.10g}",
                     worst, element, analytic, numeric);
}

GradientError check_gradient(const std::function<double()>& loss, Tensor& x, const Tensor& analytic,
                             int64_t samples, double delta, double floor, double resolution) {
  double* values = x.data<double>();
  const double* gradient = analytic.data<double>();
  const int64_t n = x.elements();
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(gradient[i]));
  const double smallest_scale = std::max(floor * largest, resolution);
  GradientError error;
  const int64_t count = std::min(n, samples);
  for (int64_t s = 0; s < count; ++s) {
    const int64_t i = s * n / count;
    const double kept = values[i];
    values[i] = kept + delta;
    const double above = loss();
    values[i] = kept - delta;
    const double below = loss();
    values[i] = kept;
    const double numeric = (above - below) / (2 * delta);
    const double relative =
        std::abs(numeric - gradient[i]) / std::max(std::abs(numeric), smallest_scale);
    if (!(relative <= error.worst)) error = {relative, i, gradient[i], numeric};
  }
  return error;
}

}  // namespace sw
