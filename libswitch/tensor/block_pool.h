// A pool of memory blocks that splits and merges them, so that a working set whose sizes change
// over a step (activations first, gradients then) takes little more than its peak.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace sw {

/// Blocks are cut from regions of at least `region_bytes` (of a page, or of huge pages where
/// regions hold some) by best fit, lowest address first: the same sequence of calls finds the same
/// layout. Not thread-safe.
class BlockPool {
 public:
  /// `granularity`: block sizes are rounded up to it; a power of two of at least 64.
  BlockPool(int64_t granularity, int64_t region_bytes);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();

  /// A block of at least `bytes`, aligned to the granularity. Throws std::bad_alloc.
  void* take(int64_t bytes);
  /// `bytes` as asked for in take().
  void give(void* block, int64_t bytes);
  /// Gives regions without a block in use back to the system.
  void trim();

  int64_t in_use_bytes() const { return in_use_bytes_; }
  int64_t system_bytes() const { return system_bytes_; }

 private:
  int64_t rounded(int64_t bytes) const;
  void add_region(int64_t bytes);
  void add_free(char* start, int64_t bytes);
  void remove_free(std::map<char*, int64_t>::iterator block);
  bool starts_region(char* address) const { return regions_.contains(address); }

  int64_t granularity_, region_bytes_;
  std::map<char*, int64_t> regions_;             // start -> bytes
  std::map<char*, int64_t> free_;                // start -> bytes; no two touch within a region
  std::set<std::pair<int64_t, char*>> by_size_;  // the same blocks
  int64_t in_use_bytes_ = 0, system_bytes_ = 0;
};

}  // namespace sw
