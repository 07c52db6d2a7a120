#include "libswitch/kernels/cpu/random_words.h"

#include <algorithm>

namespace sw::kernels::cpu {
namespace {

constexpr int kBlocks = 16;        // Philox blocks computed side by side
constexpr int kRun = 4 * kBlocks;  // words they give

// The 4 · kBlocks words of blocks counter, counter + 1, ...; sw::philox with one lane per block.
void philox_run(RngKey key, uint64_t counter, uint32_t* __restrict words) {
  const uint32_t key0 = static_cast<uint32_t>(key.value);
  const uint32_t key1 = static_cast<uint32_t>(key.value >> 32);
  const uint32_t low = static_cast<uint32_t>(counter);
  const uint32_t high = static_cast<uint32_t>(counter >> 32);
#pragma omp simd
  for (int j = 0; j < kBlocks; ++j) {
    uint32_t c0 = low + static_cast<uint32_t>(j);
    uint32_t c1 = high + (c0 < low ? 1u : 0u);
    uint32_t c2 = 0;
    uint32_t c3 = 0;
    uint32_t k0 = key0;
    uint32_t k1 = key1;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
      const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
      const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    words[4 * j] = c0;
    words[4 * j + 1] = c1;
    words[4 * j + 2] = c2;
    words[4 * j + 3] = c3;
  }
}

}  // namespace

void random_words(RngKey key, uint64_t first, std::span<uint32_t> words) {
  const uint64_t count = words.size();
  uint64_t done = 0;
  while (done < count) {
    const uint64_t index = first + done;
    const uint64_t skip = index & 3;
    const uint64_t take = std::min<uint64_t>(kRun - skip, count - done);
    if (take == kRun) {
      philox_run(key, index >> 2, words.data() + done);
    } else {
      uint32_t run[kRun];
      philox_run(key, index >> 2, run);
      std::copy_n(run + skip, take, words.data() + done);
    }
    done += take;
  }
}

}  // namespace sw::kernels::cpu
