// exp in plain arithmetic without branches or tables, so that a loop over it vectorises. f32: error
// below 2 units in the last place; f64: the C library.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sw::kernels::cpu {

/// e^x. Results below 2^-125 become 0; e^-inf = 0, e^inf = inf, NaN stays NaN.
inline float vector_exp(float x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; e^r by the polynomial of Cephes' expf (Moshier 1992).
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  const float shifted = __builtin_fmaf(x, 1.44269504088896341f, kRound);
  const float n = shifted - kRound;
  const float r = __builtin_fmaf(n, 2.12194440e-4f, __builtin_fmaf(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = __builtin_fmaf(p, r, 1.3981999507e-3f);
  p = __builtin_fmaf(p, r, 8.3334519073e-3f);
  p = __builtin_fmaf(p, r, 4.1665795894e-2f);
  p = __builtin_fmaf(p, r, 1.6666665459e-1f);
  p = __builtin_fmaf(p, r, 5.0000001201e-1f);
  p = __builtin_fmaf(p, r * r, r + 1.0f);
  // 2^n as 2 · 2^(n-1), so that n = 128 is within reach of the exponent field.
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 126u) << 23;
  float y = p * std::bit_cast<float>(exponent) * 2.0f;
  y = x < -86.6433975f ? 0.0f : y;
  return x > 88.7228394f ? std::numeric_limits<float>::infinity() : y;
}
inline double vector_exp(double x) { return std::exp(x); }

}  // namespace sw::kernels::cpu
