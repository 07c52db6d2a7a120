#include "libswitch/base/rng.h"

#include <cmath>
#include <numbers>

#include "libswitch/base/hash.h"

namespace sw {
namespace {

// SplitMix64 finaliser: spreads coordinates that differ in one bit over the whole key.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

double normal_from(const std::array<uint32_t, 4>& words) {
  const uint64_t a = uint64_t{words[0]} << 32 | words[1];
  const uint64_t b = uint64_t{words[2]} << 32 | words[3];
  const double u =
      (static_cast<double>(a >> 11) + 0.5) * 0x1.0p-53;  // in (0, 1): the logarithm is finite
  const double v = static_cast<double>(b >> 11) * 0x1.0p-53;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

}  // namespace

RngKey rng_key(uint64_t seed, RngPurpose purpose, uint64_t a, uint64_t b, uint64_t c) {
  uint64_t key = mix(seed);
  key = mix(key ^ static_cast<uint64_t>(purpose));
  key = mix(key ^ a);
  key = mix(key ^ b);
  key = mix(key ^ c);
  return {key};
}

RngKey rng_key(uint64_t seed, RngPurpose purpose, std::string_view name) {
  return rng_key(seed, purpose, xxh3_64(name.data(), name.size()));
}

uint64_t RngStream::below(uint64_t bound) {
  // Rejection below 2^64 mod bound: every residue is then equally likely.
  const uint64_t threshold = -bound % bound;
  for (;;) {
    const uint64_t x = next_u64();
    if (x >= threshold) return x % bound;
  }
}

double random_normal(RngKey key, uint64_t index) { return normal_from(philox(key, index)); }

double random_truncated_normal(RngKey key, uint64_t index) {
  for (uint64_t attempt = 0;; ++attempt) {
    const double x = normal_from(philox(key, index, attempt));
    if (std::abs(x) <= 2.0) return x;
  }
}

}  // namespace sw
