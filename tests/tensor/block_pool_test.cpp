// Blocks of the pool: apart from each other, aligned, merged when freed.
#include "libswitch/tensor/block_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace sw {
namespace {

constexpr int64_t kRegion = 1 << 20;

TEST(BlockPool, KeepsBlocksApartWhateverTheOrderOfCalls) {
  BlockPool pool(64, kRegion);
  struct Block {
    unsigned char* start;
    int64_t bytes;
    unsigned char mark;
  };
  std::vector<Block> blocks;
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    if (blocks.empty() || random() % 100 < 55) {
      const auto bytes = static_cast<int64_t>(1 + random() % (random() % 50 == 0 ? 3 << 20 : 9000));
      auto* start = static_cast<unsigned char*>(pool.take(bytes));
      ASSERT_EQ(reinterpret_cast<uintptr_t>(start) % 64, 0u);
      const auto mark = static_cast<unsigned char>(random());
      start[0] = start[bytes / 2] = start[bytes - 1] = mark;
      blocks.push_back({start, bytes, mark});
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      const Block block = blocks.back();
      blocks.pop_back();
      ASSERT_EQ(block.start[0], block.mark);
      ASSERT_EQ(block.start[block.bytes / 2], block.mark);
      ASSERT_EQ(block.start[block.bytes - 1], block.mark);
      pool.give(block.start, block.bytes);
    }
    ASSERT_LE(pool.in_use_bytes(), pool.system_bytes());
  }
  for (const Block& block : blocks) pool.give(block.start, block.bytes);
  EXPECT_EQ(pool.in_use_bytes(), 0);
  pool.trim();
  EXPECT_EQ(pool.system_bytes(), 0) << "all blocks of a region merge into one";
}

TEST(BlockPool, FreedBlocksServeOtherSizes) {
  BlockPool pool(64, kRegion);
  std::vector<void*> quarters;
  for (int i = 0; i < 4; ++i) quarters.push_back(pool.take(kRegion / 4));
  ASSERT_EQ(pool.system_bytes(), kRegion);
  for (void* quarter : quarters) pool.give(quarter, kRegion / 4);
  void* whole = pool.take(kRegion);
  EXPECT_EQ(pool.system_bytes(), kRegion);
  pool.give(whole, kRegion);
}

TEST(BlockPool, TheSameCallsFindTheSameLayout) {
  const auto layout = [](BlockPool& pool) {
    std::vector<int64_t> offsets;
    char* first = nullptr;
    std::vector<std::pair<void*, int64_t>> blocks;
    for (int i = 0; i < 200; ++i) {
      const int64_t bytes = 64 * (1 + i * 37 % 91);
      auto* block = static_cast<char*>(pool.take(bytes));
      if (first == nullptr) first = block;
      offsets.push_back(block - first);
      blocks.emplace_back(block, bytes);
      if (i % 3 == 2) {
        pool.give(blocks[blocks.size() / 2].first, blocks[blocks.size() / 2].second);
        blocks.erase(blocks.begin() + static_cast<int64_t>(blocks.size() / 2));
      }
    }
    for (auto [block, bytes] : blocks) pool.give(block, bytes);
    return offsets;
  };
  BlockPool pool(64, int64_t{8} << 20), other(64, int64_t{8} << 20);
  const auto offsets = layout(pool);
  EXPECT_EQ(layout(pool), offsets) << "after all was freed";
  EXPECT_EQ(layout(other), offsets);
}

}  // namespace
}  // namespace sw
