// Matrix products. On a CPU they run in oneDNN, or in AVX-512 kernels of our own where those are
// faster (cpu/matmul_blocks.h).
#pragma once

#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

enum class Transpose { no, yes };

/// c = op(a)·op(b), or c += ... ; op transposes when asked.
/// a [M, K] (or [K, M] transposed), b [K, N] (or [N, K]), c [M, N]. Each may have more dimensions:
/// all but the last are folded into rows. a and b have one dtype; c has it too, or is f32 for bf16
/// operands (weight gradients). Sums are f32 (f64 for f64). Bits of c do not depend on the number
/// of threads.
SW_KERNEL(matmul, Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
          Transpose transpose_b, Accum accum)

/// Expert products: rows [offsets[e], offsets[e+1]) of a times expert e's matrix.
/// c [R, N], a [R, K], b [E, K, N] (or [E, N, K] transposed), offsets [E+1] i32 with offsets[0] = 0
/// and offsets[E] <= R; rows beyond offsets[E] are left alone. Work is cut into row blocks of fixed
/// size and balanced over cores under any skew; an expert without rows costs nothing.
SW_KERNEL(grouped_matmul, Tensor& c, const Tensor& a, const Tensor& b, Transpose transpose_b,
          const Tensor& offsets, Accum accum)

/// Expert weight gradients: d_b[e] = a_eᵀ·d_c_e over the rows of expert e (or += ...).
/// d_b [E, K, N] master, a [R, K], d_c [R, N]. With Accum::write an expert without rows gets zeros.
SW_KERNEL(grouped_matmul_weight_gradient, Tensor& d_b, const Tensor& a, const Tensor& d_c,
          const Tensor& offsets, Accum accum)

}  // namespace sw::kernels
