#include "libswitch/train/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/base/stack_trace.h"
#include "libswitch/comm/group.h"

namespace sw {
namespace {

constexpr double kStepLimit = 60;  // seconds
constexpr double kTimesLongest = 8;
constexpr double kPatience = 10;  // times the limit of a step, for what may well be slow
constexpr double kForget = 0.98;  // of the longest step, with every further one

bool is_data(TrainPhase phase) {
  return phase == TrainPhase::data || phase == TrainPhase::data_of_others;
}

}  // namespace

Watchdog::Watchdog(WatchdogConfig config) : config_(std::move(config)), watched_(pthread_self()) {
  if (config_.ranks == 1 || config_.limit == 0.0) return;
  if (!config_.report) config_.report = [](const std::string& text) { log::error("{}", text); };
  if (!config_.end_process) {
    // Without the handlers of exit, which could wait for the thread that hangs.
    config_.end_process = [](int code) {
      leave_world_on_error(code);
      ::_exit(code);
    };
  }
  if (config_.limit) config_.beat_seconds = std::min(config_.beat_seconds, *config_.limit / 8);
  board_.emplace(config_.run, config_.rank, config_.ranks);
  changed_ = phase_changed_ = beat_ = CommTrace::now();
  board_->write(observe(changed_));
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    left_ = true;
  }
  leaving_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::announce(TrainPhase phase, int64_t step) {
  phase_.store(phase, std::memory_order_relaxed);
  step_.store(step, std::memory_order_relaxed);
  announcements_.fetch_add(1, std::memory_order_release);
}

void Watchdog::took(TrainPhase phase, double seconds) {
  std::atomic<double>& longest = phase == TrainPhase::save ? longest_save_ : longest_step_;
  longest = std::max(seconds, longest * kForget);
}

double Watchdog::limit() const {
  const TrainPhase phase = phase_;
  const bool file = phase == TrainPhase::start || phase == TrainPhase::save;
  if (config_.limit) return *config_.limit * (file ? kPatience : 1);
  if (file) return std::max(kPatience * kStepLimit, kTimesLongest * longest_save_);
  // How long a step takes is not known before the first is done.
  if (is_data(phase) || longest_step_ == 0) return kPatience * kStepLimit;
  return std::max(kStepLimit, kTimesLongest * longest_step_);
}

// True when the watched thread has left.
bool Watchdog::pause(double seconds) {
  std::unique_lock lock(mutex_);
  return leaving_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return left_; });
}

// What the watched thread is at, and since when.
RankState Watchdog::observe(double now) {
  RankState own;
  const int64_t announcements = announcements_.load(std::memory_order_acquire);
  const int64_t collectives = config_.trace->count();
  const auto waiting = config_.trace->waiting();
  if (collectives != seen_collectives_ || announcements != seen_announcements_ ||
      waiting.has_value() != seen_waiting_) {
    changed_ = now;
  }
  // The whole process was stopped: what it waited for had no time to happen.
  if (now - beat_ > 4 * config_.beat_seconds + 1) changed_ = phase_changed_ = now;
  beat_ = now;
  own.phase = phase_;
  if (own.phase != seen_phase_) phase_changed_ = now;
  seen_collectives_ = collectives;
  seen_announcements_ = announcements;
  seen_waiting_ = waiting.has_value();
  seen_phase_ = own.phase;

  own.rank = config_.rank;
  own.host = config_.host;
  own.pid = ::getpid();
  own.step = step_;
  own.waiting = waiting.has_value();
  if (waiting) {
    own.collective = waiting->str();
  } else if (const auto last = config_.trace->event(collectives - 1)) {
    own.collective = last->str();
  }
  own.since = now - changed_;
  // Ranks that wait for data ask each other a few times a second: no collective of theirs is long.
  if (is_data(own.phase) && own.since < std::max(2 * config_.beat_seconds, 0.5)) {
    own.waiting = false;
    own.since = now - phase_changed_;
  }
  own.alarm = alarm_;
  return own;
}

bool Watchdog::nothing_goes_on(const RankState& own, const std::vector<RankState>& states) const {
  const double limit = this->limit();
  for (const RankState& other : states) {
    if (other.rank != own.rank && other.alarm > 0 && !is_silent(other, limit)) return true;
  }
  if (own.since < limit) return false;
  if (own.waiting || own.phase == TrainPhase::data) return true;
  // Others may be at a long computation as well; nobody is held up before one of them waits.
  return std::any_of(states.begin(), states.end(), [&](const RankState& other) {
    return other.rank != own.rank && other.waiting && !is_silent(other, limit / 2);
  });
}

void Watchdog::watch() {
  pthread_setname_np(pthread_self(), "watchdog");
  while (!pause(config_.beat_seconds)) {
    const RankState own = observe(CommTrace::now());
    board_->write(own);
    if (own.since < limit() / 2) continue;
    if (nothing_goes_on(own, board_->read())) {
      if (give_alarm()) return;
      alarm_ = 0;  // it goes on after all
    }
  }
}

// The ranks see each other's alarm within a beat; the lowest reports once they had the time. False
// when the thread went on meanwhile.
bool Watchdog::give_alarm() {
  const double limit = this->limit(), stale = std::max(limit / 2, 3 * config_.beat_seconds);
  alarm_ = 1;
  board_->write(observe(CommTrace::now()));
  write_stack();
  RankState own;
  for (int beat = 0; beat < 3; ++beat) {
    if (pause(config_.beat_seconds)) return true;
    own = observe(CommTrace::now());
    if (own.since < limit / 2) return false;
    board_->write(own);
  }
  std::vector<RankState> states = board_->read();
  const auto reporter = std::find_if(states.begin(), states.end(), [&](const RankState& state) {
    return state.alarm > 0 && !is_silent(state, stale);
  });
  if (reporter == states.end() || reporter->rank == config_.rank) {
    config_.report(
        fmt::format("hang: nothing has gone on for {:.0f} s (limit {:.0f} s, see --hang-timeout); "
                    "stacks are in "
                    "{}\n{}",
                    own.since, limit, (config_.run / "stack-rank-N.txt").string(),
                    rank_table(states, config_.host, stale)));
    alarm_ = 2;
    board_->write(observe(CommTrace::now()));
  } else {
    const int64_t rank = reporter->rank;
    for (int beat = 0; beat < 5; ++beat) {
      states = board_->read();
      if (states[static_cast<size_t>(rank)].alarm == 2) break;
      if (pause(config_.beat_seconds)) return true;
      board_->write(observe(CommTrace::now()));
    }
  }
  config_.abort->set(blame(states));
  if (!pause(config_.leave_seconds)) config_.end_process(exit_code(ErrorKind::hang));
  return true;
}

// Who keeps the others waiting.
std::string Watchdog::blame(const std::vector<RankState>& states) const {
  const double stale = std::max(limit() / 2, 3 * config_.beat_seconds);
  constexpr int kNamed = 4;
  std::string text;
  int named = 0;
  for (const RankState& state : states) {
    const bool waits = (state.waiting || state.phase == TrainPhase::data_of_others);
    if (waits && !is_silent(state, stale)) continue;
    if (++named > kNamed) continue;
    text += fmt::format("{}rank {} ({}) {}", text.empty() ? "" : "; ", state.rank,
                        state.host.empty() ? "?" : state.host,
                        describe_state(state, config_.host, stale));
  }
  if (named > kNamed) text += fmt::format("; and {} more", named - kNamed);
  return text.empty() ? "all ranks wait for each other: they are not in the same collectives"
                      : text;
}

void Watchdog::write_stack() const {
  const std::filesystem::path file = config_.run / fmt::format("stack-rank-{}.txt", config_.rank);
  const std::string text = fmt::format(
      "rank {} on {}, process {}, step {}: the training thread, innermost call first\n{}",
      config_.rank, config_.host, ::getpid(), step_.load(), stack_of(watched_));
  std::ofstream(file) << text;
}

}  // namespace sw
