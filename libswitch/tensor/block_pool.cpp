#include "libswitch/tensor/block_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <new>

namespace sw {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t round_up(int64_t bytes, int64_t step) { return (bytes + step - 1) / step * step; }

}  // namespace

BlockPool::BlockPool(int64_t granularity, int64_t region_bytes)
    : granularity_(granularity), region_bytes_(region_bytes) {}

BlockPool::~BlockPool() {
  for (const auto& [start, bytes] : regions_) std::free(start);
}

int64_t BlockPool::rounded(int64_t bytes) const {
  return round_up(std::max<int64_t>(bytes, 1), granularity_);
}

void* BlockPool::take(int64_t bytes) {
  const int64_t size = rounded(bytes);
  auto fit = by_size_.lower_bound({size, nullptr});
  if (fit == by_size_.end()) {
    add_region(size);
    fit = by_size_.lower_bound({size, nullptr});
  }
  const auto [found, start] = *fit;
  remove_free(free_.find(start));
  if (found > size) add_free(start + size, found - size);
  in_use_bytes_ += size;
  return start;
}

void BlockPool::give(void* block, int64_t bytes) {
  auto* start = static_cast<char*>(block);
  int64_t size = rounded(bytes);
  in_use_bytes_ -= size;
  // Neighbours in address may lie in another region, which trim() could free by itself.
  auto next = free_.lower_bound(start);
  if (next != free_.end() && next->first == start + size && !starts_region(next->first)) {
    size += next->second;
    remove_free(next);
  }
  if (!starts_region(start)) {
    auto previous = free_.lower_bound(start);
    if (previous != free_.begin() && (--previous)->first + previous->second == start) {
      start = previous->first;
      size += previous->second;
      remove_free(previous);
    }
  }
  add_free(start, size);
}

void BlockPool::trim() {
  for (auto region = regions_.begin(); region != regions_.end();) {
    const auto block = free_.find(region->first);
    if (block != free_.end() && block->second == region->second) {
      remove_free(block);
      system_bytes_ -= region->second;
      std::free(region->first);
      region = regions_.erase(region);
    } else {
      ++region;
    }
  }
}

void BlockPool::add_region(int64_t bytes) {
  // Doubling keeps regions few, so that blocks of any size find neighbours to merge with; what is
  // not touched costs address space only.
  const int64_t wanted = std::max({bytes, region_bytes_, system_bytes_});
  const int64_t alignment = std::max(granularity_, wanted >= kHugePage ? kHugePage : kPage);
  const int64_t size = round_up(wanted, alignment);
  const auto from_system = [&] {
    return std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(size));
  };
  void* region = from_system();
  if (region == nullptr) {
    trim();
    region = from_system();
  }
  if (region == nullptr) throw std::bad_alloc();
  if (size >= kHugePage) ::madvise(region, static_cast<size_t>(size), MADV_HUGEPAGE);
  auto* start = static_cast<char*>(region);
  regions_.emplace(start, size);
  system_bytes_ += size;
  add_free(start, size);
}

void BlockPool::add_free(char* start, int64_t bytes) {
  free_.emplace(start, bytes);
  by_size_.emplace(bytes, start);
}

void BlockPool::remove_free(std::map<char*, int64_t>::iterator block) {
  by_size_.erase({block->second, block->first});
  free_.erase(block);
}

}  // namespace sw
