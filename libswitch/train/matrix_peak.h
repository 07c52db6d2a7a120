// The rate of matrix products that this machine reaches, against which training is measured.
#pragma once

#include "libswitch/tensor/dtype.h"

namespace sw {

/// Floating-point operations a second of large square products in `dtype` (f32 or bf16) with the
/// present number of threads: the best of several runs, about `seconds` in all.
double measure_matrix_peak(DType dtype, double seconds = 0.3);

}  // namespace sw
