// Decoded blocks of one shard, the least recently used dropped first.
#pragma once

#include <cstdint>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "libswitch/data/shard_reader.h"

namespace sw {

/// Thread-safe. A block that several threads ask for is read once.
class BlockCache {
 public:
  BlockCache(const ShardFile& file, int64_t capacity) : file_(file), capacity_(capacity) {}

  std::shared_ptr<const TokenBlock> get(int64_t block) {
    std::promise<std::shared_ptr<const TokenBlock>> promise;
    std::shared_future<std::shared_ptr<const TokenBlock>> result;
    bool mine = false;
    {
      const std::lock_guard lock(mutex_);
      const auto found = entries_.find(block);
      if (found != entries_.end()) {
        order_.splice(order_.begin(), order_, found->second.place);
        result = found->second.block;
      } else {
        mine = true;
        result = promise.get_future().share();
        order_.push_front(block);
        entries_[block] = {result, order_.begin()};
        while (static_cast<int64_t>(order_.size()) > capacity_) {
          entries_.erase(order_.back());
          order_.pop_back();
        }
      }
    }
    if (mine) {
      try {
        promise.set_value(std::make_shared<const TokenBlock>(file_.read_block(block)));
      } catch (...) {
        promise.set_exception(std::current_exception());
      }
    }
    return result.get();
  }

 private:
  struct Entry {
    std::shared_future<std::shared_ptr<const TokenBlock>> block;
    std::list<int64_t>::iterator place;
  };
  const ShardFile& file_;
  int64_t capacity_;
  std::mutex mutex_;
  std::list<int64_t> order_;
  std::unordered_map<int64_t, Entry> entries_;
};

}  // namespace sw
