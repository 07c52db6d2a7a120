// Prepares the next batches on a thread of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "libswitch/data/dataset.h"

namespace sw {

/// Calls `make(step, batch)` for step = first_step, first_step + 1, ... ahead of next(), at most
/// `depth` batches in advance. A step that depends on its number alone makes the same batches with
/// or without it.
class Prefetcher {
 public:
  using Make = std::function<void(int64_t step, Batch& batch)>;

  Prefetcher(Make make, int64_t first_step, int depth = 2);
  /// Stops the thread; a batch being made is finished first.
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The batch of the next step; throws here what `make` threw. The buffers of `batch` are reused.
  void next(Batch& batch);
  /// The same, but gives up after `seconds` without a batch and returns false.
  bool next_within(double seconds, Batch& batch);
  /// Seconds that next() has waited for data, in all.
  double wait_seconds() const { return wait_seconds_; }

 private:
  void run();

  Make make_;
  size_t depth_;
  int64_t step_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_, spare_;
  std::exception_ptr error_;
  bool stop_ = false;
  double wait_seconds_ = 0;
  std::thread thread_;
};

}  // namespace sw
