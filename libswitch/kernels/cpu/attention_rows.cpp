#include "libswitch/kernels/cpu/attention_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "libswitch/kernels/cpu/lane_mask.h"

namespace sw::kernels::cpu {

// All code is compiled for AVX2; what follows runs only after has_panels().
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))), apply_to = function)
#else
#pragma GCC push_options
// GCC 12 warns of its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif

namespace {

// e^x as vector_exp (vector_math.h), with the processor's own rounding and scaling.
inline __m512 exponential(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693359375f), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  // Below 2^-125: 0; so is e^-inf, whose r is no number. NaN stays NaN.
  const __mmask16 seen = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-86.6433975f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(seen, p, n);
}

inline void store_lanes(float* y, __mmask16 mask, __m512 x) { _mm512_mask_storeu_ps(y, mask, x); }
inline void store_lanes(bf16* y, __mmask16 mask, __m512 x) {
  _mm256_mask_storeu_epi16(y, mask, (__m256i)_mm512_cvtneps_pbh(x));
}

template <class T>
inline void zero_lanes(T* y, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; j += 16) {
    store_lanes(y + j, first_lanes(end - j), _mm512_setzero_ps());
  }
}

// Calls fn(j, mask) for vectors of 16 lanes from 0 to count, full ones with a constant mask.
template <class Fn>
inline void for_lanes(int64_t count, const Fn& fn) {
  int64_t j = 0;
  for (; j + 16 <= count; j += 16) fn(j, __mmask16{0xFFFF});
  if (j < count) fn(j, first_lanes(count - j));
}

}  // namespace

float add_bias_row(float* s, const float* bias, int64_t count) {
  const __m512 hidden = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 top = hidden;
  for_lanes(count, [&](int64_t j, __mmask16 mask) {
    __m512 x = _mm512_mask_loadu_ps(hidden, mask, s + j);
    if (bias != nullptr) {
      x = _mm512_mask_add_ps(hidden, mask, x, _mm512_maskz_loadu_ps(mask, bias + j));
      _mm512_mask_storeu_ps(s + j, mask, x);
    }
    top = _mm512_max_ps(x, top);  // of a NaN and top: top
  });
  return _mm512_reduce_max_ps(top);
}

template <class T>
float exponential_row(const float* s, float largest, const float* factors, int64_t visible,
                      int64_t count, T* weights) {
  const __m512 top = _mm512_set1_ps(largest);
  __m512 sum = _mm512_setzero_ps();
  for_lanes(visible, [&](int64_t j, __mmask16 mask) {
    __m512 x = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, s + j), top));
    sum = _mm512_mask_add_ps(sum, mask, sum, x);
    if (factors != nullptr) x = _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, factors + j));
    store_lanes(weights + j, mask, x);
  });
  zero_lanes(weights, visible, count);
  return _mm512_reduce_add_ps(sum);
}

template <class T>
float weight_row(float* s, const float* bias, float log_sum_exp, const float* d_w,
                 const float* factors, int64_t visible, int64_t count, T* weights) {
  const __m512 shift = _mm512_set1_ps(log_sum_exp);
  __m512 sum = _mm512_setzero_ps();
  for_lanes(visible, [&](int64_t j, __mmask16 mask) {
    __m512 x = shift;
    if (bias != nullptr) x = _mm512_sub_ps(x, _mm512_maskz_loadu_ps(mask, bias + j));
    x = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, s + j), x));
    _mm512_mask_storeu_ps(s + j, mask, x);
    if (factors != nullptr) x = _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, factors + j));
    sum = _mm512_mask3_fmadd_ps(x, _mm512_maskz_loadu_ps(mask, d_w + j), sum, mask);
    store_lanes(weights + j, mask, x);
  });
  zero_lanes(s, visible, count);
  zero_lanes(weights, visible, count);
  return _mm512_reduce_add_ps(sum);
}

template <class T>
void score_gradient_row(const float* w, const float* d_w, const float* factors, float sum,
                        int64_t visible, int64_t count, float* d_bias, T* d_scores) {
  const __m512 shift = _mm512_set1_ps(sum);
  for_lanes(visible, [&](int64_t j, __mmask16 mask) {
    __m512 x = _mm512_maskz_loadu_ps(mask, d_w + j);
    if (factors != nullptr) x = _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, factors + j));
    x = _mm512_mul_ps(_mm512_sub_ps(x, shift), _mm512_maskz_loadu_ps(mask, w + j));
    if (d_bias != nullptr) {
      const __m512 before = _mm512_maskz_loadu_ps(mask, d_bias + j);
      _mm512_mask_storeu_ps(d_bias + j, mask, _mm512_add_ps(before, x));
    }
    store_lanes(d_scores + j, mask, x);
  });
  zero_lanes(d_scores, visible, count);
}

template float exponential_row(const float*, float, const float*, int64_t, int64_t, float*);
template float exponential_row(const float*, float, const float*, int64_t, int64_t, bf16*);
template float weight_row(float*, const float*, float, const float*, const float*, int64_t, int64_t,
                          float*);
template float weight_row(float*, const float*, float, const float*, const float*, int64_t, int64_t,
                          bf16*);
template void score_gradient_row(const float*, const float*, const float*, float, int64_t, int64_t,
                                 float*, float*);
template void score_gradient_row(const float*, const float*, const float*, float, int64_t, int64_t,
                                 float*, bf16*);

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

}  // namespace sw::kernels::cpu
