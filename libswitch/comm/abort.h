// Ends waits that would never end by themselves.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

namespace sw {

/// Set by a watchdog, or by a rank that fails in a world of threads; every wait for messages looks
/// at it and throws hang. Thread-safe.
class AbortFlag {
 public:
  /// The first reason stays.
  void set(const std::string& reason);
  bool is_set() const { return set_.load(std::memory_order_acquire); }
  std::string reason() const;
  /// For tests: waits go on as before.
  void clear();

 private:
  std::atomic<bool> set_{false};
  mutable std::mutex mutex_;
  std::string reason_;
};

/// The flag that all worlds of this process look at.
AbortFlag& process_abort();

}  // namespace sw
