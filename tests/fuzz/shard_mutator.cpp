// Mutates shards behind their checksums: after libFuzzer's change the checksums are made right
// again, most of the time, so that the checks after them are reached.
#include <zstd.h>

#include <cstring>

#include "libswitch/base/hash.h"
#include "libswitch/data/shard_format.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

uint32_t u32_at(const uint8_t* at) {
  uint32_t value;
  std::memcpy(&value, at, 4);
  return value;
}

void put_hash(uint8_t* at, const uint8_t* from, size_t bytes) {
  const uint32_t hash = sw::xxh3_32(from, bytes);
  std::memcpy(at, &hash, 4);
}

void reseal(uint8_t* data, size_t size) {
  size_t at = 0;
  while (size - at >= 16 && u32_at(data + at) == sw::kSkippableMagic) {
    const size_t bytes = size_t{8} + u32_at(data + at + 4);
    if (bytes > size - at || bytes < 24) return;
    uint8_t* frame = data + at;
    at += bytes;
    if (std::memcmp(frame + 8, "SWTSIDX1", 8) == 0) {
      put_hash(frame + bytes - 12, frame + 8, bytes - 20);
      continue;
    }
    if (std::memcmp(frame + 8, "SWTSBLK1", 8) == 0 && bytes >= sw::kBlockFrameBytes) {
      const size_t compressed = u32_at(frame + 32);
      if (compressed <= size - at) {
        put_hash(frame + 36, data + at, compressed);
        static uint8_t raw[1 << 16];
        const size_t n = ZSTD_decompress(raw, sizeof raw, data + at, compressed);
        if (!ZSTD_isError(n)) put_hash(frame + 40, raw, n);
        at += compressed;
      }
    }
    put_hash(frame + bytes - 4, frame + 8, bytes - 12);
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 != 0) reseal(data, size);
  return size;
}
