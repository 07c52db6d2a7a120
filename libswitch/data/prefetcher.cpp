#include "libswitch/data/prefetcher.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "libswitch/base/timer.h"

namespace sw {

Prefetcher::Prefetcher(Make make, int64_t first_step, int depth)
    : make_(std::move(make)),
      depth_(static_cast<size_t>(std::max(depth, 1))),
      step_(first_step),
      thread_([this] { run(); }) {}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || ready_.size() < depth_; });
    if (stop_) return;
    Batch batch;
    if (!spare_.empty()) {
      batch = std::move(spare_.front());
      spare_.pop_front();
    }
    const int64_t step = step_++;
    lock.unlock();
    std::exception_ptr error;
    try {
      make_(step, batch);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error != nullptr) {
      error_ = error;
      changed_.notify_all();
      return;
    }
    ready_.push_back(std::move(batch));
    changed_.notify_all();
  }
}

void Prefetcher::next(Batch& batch) {
  constexpr double kSeconds = 3600;
  while (!next_within(kSeconds, batch)) continue;
}

bool Prefetcher::next_within(double seconds, Batch& batch) {
  const Timer timer;
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                    [&] { return !ready_.empty() || error_ != nullptr; });
  wait_seconds_ += timer.seconds();
  // Batches made before the fault are still good.
  if (ready_.empty() && error_ != nullptr) std::rethrow_exception(error_);
  if (ready_.empty()) return false;
  spare_.push_back(std::move(batch));
  batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return true;
}

}  // namespace sw
