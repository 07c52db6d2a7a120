// Runs of a counter-based random stream, several counters at a time.
#pragma once

#include <cstdint>
#include <span>

#include "libswitch/base/rng.h"

namespace sw::kernels::cpu {

/// words[i] = random_u32(key, first + i).
void random_words(RngKey key, uint64_t first, std::span<uint32_t> words);

/// to_uniform, in a form that vectorises: 24 bits fit a signed integer.
inline float uniform_of(uint32_t word) {
  return static_cast<float>(static_cast<int32_t>(word >> 8)) * 0x1.0p-24f;
}

}  // namespace sw::kernels::cpu
