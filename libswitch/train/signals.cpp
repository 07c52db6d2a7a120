#include "libswitch/train/signals.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <system_error>
#include <utility>

#include "libswitch/base/error.h"

namespace sw {
namespace {

constexpr double kLookSeconds = 0.25;
constexpr std::array kSignals = {SIGUSR1, SIGTERM, SIGINT, SIGUSR2, SIGHUP};

// All that handlers touch. Lock-free atomics are safe there.
std::atomic<int> stop_signal{0};
std::atomic<int> interrupts{0};
std::atomic<bool> save_requested{false};
std::atomic<bool> reopen_requested{false};
std::atomic<bool> stops_at_once{false};
static_assert(std::atomic<int>::is_always_lock_free);
std::array<struct sigaction, kSignals.size()> previous_actions;

// Nothing has been trained yet: the end of the process is all that a stop takes.
[[noreturn]] void end_at_once(int signal) {
  constexpr char kText[] =
      "stopped by a signal before training began; the same command line starts again\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(signal == SIGINT ? 128 + SIGINT : exit_code(ErrorKind::stopped));
}

void handle(int signal) {
  if (stops_at_once && signal != SIGUSR2 && signal != SIGHUP) end_at_once(signal);
  switch (signal) {
    case SIGUSR2: save_requested = true; break;
    case SIGHUP: reopen_requested = true; break;
    case SIGINT:
      if (interrupts.fetch_add(1) > 0) _exit(128 + SIGINT);
      [[fallthrough]];
    default: stop_signal = signal;
  }
}

}  // namespace

OutsideRequests::OutsideRequests(std::filesystem::path run_folder)
    : folder_(std::move(run_folder)) {
  stop_signal = 0;
  interrupts = 0;
  save_requested = false;
  reopen_requested = false;
  stops_at_once = false;
  struct sigaction action {};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &previous_actions[i]);
    const bool ignored = previous_actions[i].sa_handler == SIG_IGN;
    if (kSignals[i] == SIGHUP && ignored) continue;
    sigaction(kSignals[i], &action, nullptr);
  }
}

void OutsideRequests::stop_at_once(bool on) { stops_at_once = on; }

OutsideRequests::~OutsideRequests() {
  for (size_t i = 0; i < kSignals.size(); ++i)
    sigaction(kSignals[i], &previous_actions[i], nullptr);
}

bool OutsideRequests::take_file(const char* name) {
  std::error_code error;
  return std::filesystem::remove(folder_ / name, error);
}

void OutsideRequests::look_for_files() {
  if (folder_.empty() || (looked_ && since_look_.seconds() < kLookSeconds)) return;
  looked_ = true;
  since_look_.restart();
  if (take_file("SAVE")) save_ = true;
  if (!stop_ && take_file("STOP")) {
    stop_ = true;
    reason_ = "the file STOP";
  }
}

bool OutsideRequests::stop() {
  const int signal = stop_signal;
  if (!stop_ && signal != 0) {
    stop_ = true;
    reason_ = fmt::format("SIG{}", sigabbrev_np(signal));
  }
  if (!stop_) look_for_files();
  return stop_;
}

bool OutsideRequests::take_save() {
  look_for_files();
  const bool by_signal = save_requested.exchange(false);
  return std::exchange(save_, false) || by_signal;
}

bool OutsideRequests::take_reopen() { return reopen_requested.exchange(false); }

}  // namespace sw
