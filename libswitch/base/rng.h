// Counter-based random numbers: every draw is a pure function of a key and an index, so dropout,
// jitter, initial weights and span masks replay exactly on any number of threads, ranks and
// restarts.
//
// Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sw {

/// What a stream of draws is for. The value enters the key: never renumber.
enum class RngPurpose : uint32_t {
  init = 1,
  dropout = 2,
  jitter = 3,
  routing = 4,
  span_mask = 5,
  shuffle = 6,
  sampling = 7,
  test = 8,
  chunk = 9,
};

/// 64-bit Philox key. Two different (seed, purpose, a, b, c) give independent streams.
struct RngKey {
  uint64_t value = 0;
};

/// Key of the stream of `purpose` at the coordinates a, b, c (for dropout: step, layer, site).
RngKey rng_key(uint64_t seed, RngPurpose purpose, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0);

/// Key from a name (a parameter's path), for initial values that depend on nothing but seed, name
/// and index.
RngKey rng_key(uint64_t seed, RngPurpose purpose, std::string_view name);

/// Four 32-bit words for block `counter` of the stream.
inline std::array<uint32_t, 4> philox(RngKey key, uint64_t counter, uint64_t lane = 0) {
  uint32_t k0 = static_cast<uint32_t>(key.value);
  uint32_t k1 = static_cast<uint32_t>(key.value >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter);
  uint32_t c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = static_cast<uint32_t>(lane);
  uint32_t c3 = static_cast<uint32_t>(lane >> 32);
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
  return {c0, c1, c2, c3};
}

/// Word `index` of the stream: element index & 3 of block index >> 2.
inline uint32_t random_u32(RngKey key, uint64_t index) {
  return philox(key, index >> 2)[index & 3];
}

/// Uniform in [0, 1) with 24 bits.
inline float to_uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1.0p-24f; }
inline float random_uniform(RngKey key, uint64_t index) {
  return to_uniform(random_u32(key, index));
}

/// Sequential view of one stream, for serial code (shuffles, span masks).
class RngStream {
 public:
  explicit RngStream(RngKey key) : key_(key) {}
  uint32_t next_u32() { return random_u32(key_, index_++); }
  uint64_t next_u64() {
    const uint64_t high = next_u32();
    return high << 32 | next_u32();
  }
  /// Unbiased integer in [0, bound), bound >= 1.
  uint64_t below(uint64_t bound);
  double uniform() { return static_cast<double>(next_u64() >> 11) * 0x1.0p-53; }

 private:
  RngKey key_;
  uint64_t index_ = 0;
};

/// Standard normal number `index` of the stream (Box-Muller in double; two words a draw,
/// independent of order).
double random_normal(RngKey key, uint64_t index);

/// Standard normal conditioned on |x| <= 2, by resampling along a lane of its own
/// (index-addressable).
double random_truncated_normal(RngKey key, uint64_t index);

}  // namespace sw
