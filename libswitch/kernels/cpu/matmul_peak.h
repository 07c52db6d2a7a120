// The yardstick of every rate on a CPU: how fast oneDNN multiplies matrices on this machine in this
// process.
#pragma once

#include "libswitch/tensor/dtype.h"

namespace sw::kernels::cpu {

/// The best rate, in multiply-add flops per nanosecond (GFLOP/s), of oneDNN over large square and
/// T5-shaped products of f32 or bf16 with num_threads() threads of oneDNN's own, each repeated for
/// about `seconds` (8 products). bf16 on a processor without instructions for it gives the rate of
/// f32, which such products are widened to. Any other dtype is a usage error.
double measure_matmul_peak(DType dtype, double seconds = 0.1);

}  // namespace sw::kernels::cpu
