// What attention does with a row of scores, in AVX-512 vectors: one pass each over a row that lies
// in the cache. Only where has_panels() holds (matmul_panels.h). T: type of the operands, float or
// bf16; `factors` are those of dropout, or null.
#pragma once

#include <cstdint>

#include "libswitch/tensor/dtype.h"

namespace sw::kernels::cpu {

/// s += bias (null: 0) for `count` scores; returns the largest, at least -inf. NaNs are passed
/// over.
float add_bias_row(float* s, const float* bias, int64_t count);

/// weights = round(exp(s - largest)·factors) for `visible` scores and 0 up to `count`; returns
/// Σ exp(s - largest), before rounding and factors.
template <class T>
float exponential_row(const float* s, float largest, const float* factors, int64_t visible,
                      int64_t count, T* weights);

/// s becomes w = exp(s + bias - log_sum_exp), weights = round(w·factors), both 0 from `visible` to
/// `count`; returns Σ w·d_w·factors.
template <class T>
float weight_row(float* s, const float* bias, float log_sum_exp, const float* d_w,
                 const float* factors, int64_t visible, int64_t count, T* weights);

/// Gradient of the scores g = w·(d_w·factors - sum): d_bias += g (unless null), d_scores =
/// round(g), 0 from `visible` to `count`.
template <class T>
void score_gradient_row(const float* w, const float* d_w, const float* factors, float sum,
                        int64_t visible, int64_t count, float* d_bias, T* d_scores);

}  // namespace sw::kernels::cpu
