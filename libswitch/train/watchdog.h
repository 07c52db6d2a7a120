// A thread beside the training of every rank that ends the run when nothing goes on any more: a
// rank that was stopped, is lost in a computation or has left the others waiting would otherwise
// hold all of them up for ever.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "libswitch/comm/abort.h"
#include "libswitch/comm/trace.h"
#include "libswitch/train/rank_board.h"

namespace sw {

struct WatchdogConfig {
  int64_t rank = 0, ranks = 1;
  std::string host;
  std::filesystem::path run;  // folder of the board and of stacks
  /// Seconds without progress that end the run, ten times that at the start and in saves; 0: never.
  /// Unset: 60, or 8 x the longest of the recent steps; 600 up to the first step, in saves (or 8 x
  /// the longest of them) and without data.
  std::optional<double> limit;
  const CommTrace* trace = nullptr;
  AbortFlag* abort = nullptr;  // makes waits in collectives throw hang
  double beat_seconds = 1;     // between looks and heartbeats, at most an eighth of the limit
  double leave_seconds = 5;    // the training thread has to get out after that
  /// For tests. Defaults: the log; ending the process.
  std::function<void(const std::string&)> report;
  std::function<void(int exit_code)> end_process;
};

/// Watches the thread that makes it. Nothing goes on when the thread waits in one collective longer
/// than the limit, or enters none for longer while another rank waits, or gets no data for longer.
/// Then all ranks that are able to write their thread's stack to <run>/stack-rank-N.txt, the lowest
/// of them reports what every rank is at, and their collectives throw hang. A thread that does not
/// come out ends with its process, exit code 82.
class Watchdog {
 public:
  /// Does nothing with one rank or a limit of 0. Throws cannot_create.
  explicit Watchdog(WatchdogConfig config);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// What the thread is at now; cheap.
  void announce(TrainPhase phase, int64_t step);
  /// How long a step, or a save, took.
  void took(TrainPhase phase, double seconds);

 private:
  void watch();
  bool pause(double seconds);
  double limit() const;
  RankState observe(double now);
  bool nothing_goes_on(const RankState& own, const std::vector<RankState>& states) const;
  bool give_alarm();
  void write_stack() const;
  std::string blame(const std::vector<RankState>& states) const;

  WatchdogConfig config_;
  std::optional<RankBoard> board_;
  pthread_t watched_{};

  // Written by the watched thread.
  std::atomic<TrainPhase> phase_{TrainPhase::start};
  std::atomic<int64_t> step_{0}, announcements_{0};
  std::atomic<double> longest_step_{0}, longest_save_{0};

  // Of the watching thread.
  int64_t seen_collectives_ = -1, seen_announcements_ = -1;
  bool seen_waiting_ = false;
  double changed_ = 0, phase_changed_ = 0, beat_ = 0;  // when; of CommTrace::now()
  TrainPhase seen_phase_ = TrainPhase::start;
  int64_t alarm_ = 0;

  std::mutex mutex_;
  std::condition_variable leaving_;
  bool left_ = false;
  std::thread thread_;
};

}  // namespace sw
