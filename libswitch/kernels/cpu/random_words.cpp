#include "libswitch/kernels/cpu/random_words.h"

#include <algorithm>

#include "libswitch/kernels/cpu/vectors.h"

namespace sw::kernels::cpu {
namespace {

const hn::ScalableTag<uint64_t> kLanes;
const hn::ScalableTag<uint32_t> kHalves;
using Vector = hn::Vec<hn::ScalableTag<uint64_t>>;

constexpr int kBlocks = 16;        // Philox blocks computed side by side
constexpr int kRun = 4 * kBlocks;  // words they give

Vector multiply(Vector c, uint32_t factor) {
  return hn::MulEven(hn::BitCast(kHalves, c), hn::Set(kHalves, factor));
}

// The words of kBlocks blocks from `counter` on: sw::philox, one block in each 64-bit lane. Only
// the lower halves of the state count: what a product leaves above them the next one ignores.
void philox_run(RngKey key, uint64_t counter, uint32_t* words) {
  constexpr int kVectors = 2;  // side by side, since each waits for its own last product
  constexpr int kStep = static_cast<int>(hn::MaxLanes(kLanes)) * kVectors;
  static_assert(kBlocks % kStep == 0);
  const Vector low_half = hn::Set(kLanes, uint64_t{0xFFFFFFFFu});
  const Vector lane = hn::Iota(kLanes, 0);
  for (int block = 0; block < kBlocks; block += kStep) {
    auto k0 = static_cast<uint32_t>(key.value);
    auto k1 = static_cast<uint32_t>(key.value >> 32);
    Vector c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int first = block + v * static_cast<int>(hn::MaxLanes(kLanes));
      c0[v] = hn::Add(hn::Set(kLanes, counter + static_cast<uint64_t>(first)), lane);
      c1[v] = hn::ShiftRight<32>(c0[v]);
      c2[v] = c3[v] = hn::Zero(kLanes);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const Vector p0 = multiply(c0[v], 0xD2511F53u);
        const Vector p1 = multiply(c2[v], 0xCD9E8D57u);
        c0[v] = hn::Xor(hn::Xor(c1[v], hn::Set(kLanes, k0)), hn::ShiftRight<32>(p1));
        c2[v] = hn::Xor(hn::Xor(c3[v], hn::Set(kLanes, k1)), hn::ShiftRight<32>(p0));
        c1[v] = p1;
        c3[v] = p0;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      // Two words in a lane are half a block; the halves of a block lie side by side in memory.
      const Vector front = hn::OrAnd(hn::ShiftLeft<32>(c1[v]), c0[v], low_half);
      const Vector back = hn::OrAnd(hn::ShiftLeft<32>(c3[v]), c2[v], low_half);
      const int64_t first = block + v * static_cast<int64_t>(hn::MaxLanes(kLanes));
      hn::StoreInterleaved2(front, back, kLanes, reinterpret_cast<uint64_t*>(words + 4 * first));
    }
  }
}

}  // namespace

void random_words(RngKey key, uint64_t first, std::span<uint32_t> words) {
  const uint64_t count = words.size();
  alignas(8) uint32_t run[kRun];
  for (uint64_t done = 0; done < count;) {
    const uint64_t index = first + done;
    const uint64_t skip = index & 3;
    const uint64_t take = std::min<uint64_t>(kRun - skip, count - done);
    if (take == kRun) {
      philox_run(key, index >> 2, words.data() + done);
    } else {
      philox_run(key, index >> 2, run);
      std::copy_n(run + skip, take, words.data() + done);
    }
    done += take;
  }
}

}  // namespace sw::kernels::cpu
