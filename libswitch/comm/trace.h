// What a rank is doing in collectives, written by the rank and read by a watchdog.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

enum class CommKind { all_reduce, reduce_scatter, all_gather, broadcast, all_to_all, barrier };
/// "all_reduce", ...
const char* comm_kind_name(CommKind kind);

/// One collective of one rank.
struct CommEvent {
  std::string group;
  CommKind kind = CommKind::barrier;
  int64_t sequence = 0;  // counts the collectives of the group from 0
  int64_t bytes = 0;     // payload this rank sends
  double entered = 0;    // seconds of CommTrace::now()
  double left = -1;      // -1: still under way
  /// "all_to_all #1234 of group expert".
  std::string str() const;
};

/// The last kEvents collectives of a rank. Written by the rank's thread, readable by any other.
class CommTrace {
 public:
  static constexpr int64_t kEvents = 256;

  /// Seconds of a clock that all traces of the process share.
  static double now();

  /// Collectives entered so far.
  int64_t count() const { return count_.load(std::memory_order_acquire); }
  /// The latest, oldest first.
  std::vector<CommEvent> events() const;
  /// What the rank waits for right now, if it does.
  std::optional<CommEvent> waiting() const;
  /// "waiting in all_to_all #1234 of group expert since 61 s", "last left all_gather #7 of group
  /// data 3 s ago" or "in no collective yet".
  std::string str() const;

  /// The rank's time in collectives so far, waiting and working; not what went on beside other
  /// work.
  double seconds() const { return seconds_.load(std::memory_order_relaxed); }

  // For the groups of the rank.
  /// Returns the ticket of the collective for the calls below.
  int64_t enter(std::string_view group, CommKind kind, int64_t sequence, int64_t bytes);
  void leave(int64_t ticket);
  /// While it waits, `ticket` is what the rank waits for; -1: nothing.
  void set_waiting(int64_t ticket) { waiting_.store(ticket, std::memory_order_release); }
  std::optional<CommEvent> event(int64_t ticket) const;
  void add_seconds(double seconds) {
    seconds_.store(seconds_.load(std::memory_order_relaxed) + seconds, std::memory_order_relaxed);
  }

 private:
  // A slot is valid for the ticket it names; a reader looks at the ticket before and after.
  struct Slot {
    std::atomic<int64_t> ticket{-1}, sequence{0}, bytes{0};
    std::atomic<CommKind> kind{CommKind::barrier};
    std::atomic<double> entered{0}, left{-1};
    std::array<std::atomic<uint64_t>, 2> group{};  // up to 16 characters
  };
  std::array<Slot, kEvents> slots_;
  std::atomic<int64_t> count_{0}, waiting_{-1};
  std::atomic<double> seconds_{0};
};

}  // namespace sw
