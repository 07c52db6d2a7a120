// Finite differences: the independent check of every backward pass.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "libswitch/tensor/tensor.h"

namespace sw {

struct GradientError {
  double worst = 0;     // |analytic - numeric| / max(|numeric|, floor)
  int64_t element = 0;  // where
  double analytic = 0, numeric = 0;
  std::string str() const;
};

/// Compares `analytic` with central differences of `loss` in the elements of `x` (f64; changed in
/// place and put back). At most `samples` elements, evenly spread, are tried. The floor of the
/// denominator is `floor` times the largest |analytic|.
GradientError check_gradient(const std::function<double()>& loss, Tensor& x, const Tensor& analytic,
                             int64_t samples = 64, double delta = 1e-5, double floor = 1e-3,
                             double resolution = 1e-4);

}  // namespace sw
