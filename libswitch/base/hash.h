// Checksums: XXH3 for everything (shards, tiles, digests), SHA-256 for naming a vocabulary file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace sw {

uint64_t xxh3_64(const void* data, size_t bytes);
/// Low 32 bits of XXH3-64: the "CRC" of the shard format.
inline uint32_t xxh3_32(const void* data, size_t bytes) {
  return static_cast<uint32_t>(xxh3_64(data, bytes));
}

struct Hash128 {
  uint64_t low = 0, high = 0;
  bool operator==(const Hash128&) const = default;
  /// 32 lower-case hexadecimal digits, high word first.
  std::string hex() const;
};
Hash128 xxh3_128(const void* data, size_t bytes);

/// Streaming XXH3-128.
class Hash128Stream {
 public:
  Hash128Stream();
  ~Hash128Stream();
  Hash128Stream(const Hash128Stream&) = delete;
  Hash128Stream& operator=(const Hash128Stream&) = delete;
  void update(const void* data, size_t bytes);
  Hash128 digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// SHA-256 (FIPS 180-4) of `bytes` bytes.
std::array<uint8_t, 32> sha256(const void* data, size_t bytes);
std::string to_hex(const void* data, size_t bytes);

}  // namespace sw
