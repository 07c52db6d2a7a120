// The threads behind parallel_for. A loop ends when its chunks are done, not when its threads are
// there: a worker that lost its core to other work is not waited for unless it holds a chunk. Teams
// of OpenMP meet at a barrier after every loop; on cores that are shared with other work they ran a
// training step of some 500 loops at a fifth of the speed.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "libswitch/base/parallel.h"

namespace sw::parallel_detail {
namespace {

thread_local bool in_chunk = false;

void relax() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// How long an idle worker looks for the next loop before it sleeps. As for OpenMP, which users
// know: OMP_WAIT_POLICY=passive does not spin, active spins longer.
std::chrono::microseconds idle_spin() {
  const char* variable = std::getenv("OMP_WAIT_POLICY");
  const std::string_view policy = variable == nullptr ? "" : variable;
  if (policy == "passive" || policy == "PASSIVE") return std::chrono::microseconds(0);
  if (policy == "active" || policy == "ACTIVE") return std::chrono::microseconds(20000);
  return std::chrono::microseconds(200);
}

// Calls done() until it is true or `time` has passed; returns what it said last.
template <class Done>
bool spin_until(std::chrono::microseconds time, const Done& done) {
  constexpr int kLooksPerClock = 32;
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

class Team {
 public:
  void run(int64_t n, int64_t grain, Body body, const void* fn) {
    const std::unique_lock lock(owner_, std::try_to_lock);
    if (!lock.owns_lock()) {
      for (int64_t begin = 0; begin < n; begin += grain)
        body(fn, begin, std::min(n, begin + grain));
      return;
    }
    while (workers_ < num_threads() - 1) {
      std::thread(&Team::work, this, workers_++).detach();  // to the end of the process
    }
    const int64_t chunks = (n + grain - 1) / grain;
    publish(n, grain, chunks, body, fn);
    take_chunks();
    const auto finished = [&] { return done_.load(std::memory_order_acquire) == chunks; };
    if (!spin_until(idle_spin_, finished)) {
      for (int64_t seen = done_.load(); seen != chunks; seen = done_.load()) done_.wait(seen);
    }
    if (failed_.load(std::memory_order_acquire)) {
      failed_.store(false, std::memory_order_relaxed);
      std::rethrow_exception(std::exchange(error_, nullptr));
    }
  }

 private:
  // A loop's turn and its next chunk in one word: who takes a chunk knows that the loop it read is
  // the one that the chunk belongs to.
  static constexpr uint64_t kChunkBits = 40;
  static constexpr uint64_t kTurn = uint64_t{1} << kChunkBits;
  static constexpr uint64_t kClosed = kTurn - 1;

  void publish(int64_t n, int64_t grain, int64_t chunks, Body body, const void* fn) {
    const uint64_t turn = (next_.load(std::memory_order_relaxed) & ~kClosed) + kTurn;
    next_.store(turn | kClosed);  // nobody takes chunks of a loop that is half written
    n_.store(n, std::memory_order_relaxed);
    grain_.store(grain, std::memory_order_relaxed);
    chunks_.store(chunks, std::memory_order_relaxed);
    body_.store(body, std::memory_order_relaxed);
    fn_.store(fn, std::memory_order_relaxed);
    wanted_.store(num_threads() - 1, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    next_.store(turn);
    epoch_.fetch_add(1);
    if (sleepers_.load() > 0) epoch_.notify_all();
  }

  void take_chunks() {
    uint64_t at = next_.load();
    for (;;) {
      const int64_t chunk = static_cast<int64_t>(at & kClosed);
      const int64_t n = n_.load(std::memory_order_relaxed);
      const int64_t grain = grain_.load(std::memory_order_relaxed);
      const int64_t chunks = chunks_.load(std::memory_order_relaxed);
      const Body body = body_.load(std::memory_order_relaxed);
      const void* fn = fn_.load(std::memory_order_relaxed);
      if (chunk == static_cast<int64_t>(kClosed) || chunk >= chunks) return;
      if (!next_.compare_exchange_weak(at, at + 1)) continue;
      if (!failed_.load(std::memory_order_relaxed)) {
        in_chunk = true;
        try {
          body(fn, chunk * grain, std::min(n, (chunk + 1) * grain));
        } catch (...) {
          if (!failed_.exchange(true)) error_ = std::current_exception();
        }
        in_chunk = false;
      }
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == chunks) {
        done_.notify_one();
        return;
      }
      at = next_.load();
    }
  }

  void work(int index) {
    for (uint32_t seen = 0;;) {
      const auto called = [&] { return epoch_.load() != seen; };
      if (!spin_until(idle_spin_, called)) {
        ++sleepers_;
        epoch_.wait(seen);
        --sleepers_;
      }
      seen = epoch_.load();
      if (index < wanted_.load(std::memory_order_relaxed)) take_chunks();
    }
  }

  const std::chrono::microseconds idle_spin_ = idle_spin();
  std::mutex owner_;  // held by the thread whose loop runs
  int workers_ = 0;

  alignas(64) std::atomic<uint64_t> next_{kClosed};
  std::atomic<int64_t> n_{0}, grain_{1}, chunks_{0};
  std::atomic<Body> body_{nullptr};
  std::atomic<const void*> fn_{nullptr};
  std::atomic<int> wanted_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;  // written by who set failed_
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<int> sleepers_{0};
};

Team& team() {
  static auto* instance = new Team;  // outlives every static object that may run a loop
  return *instance;
}

}  // namespace

bool inside() { return in_chunk; }

void run(int64_t n, int64_t grain, Body body, const void* fn) { team().run(n, grain, body, fn); }

}  // namespace sw::parallel_detail
