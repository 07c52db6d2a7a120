// The lanes of an AVX-512 vector of 16 that a load or store takes. Needs no AVX-512 itself.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sw::kernels::cpu {

/// The first `count` of 16 lanes; any count.
inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
}

}  // namespace sw::kernels::cpu
