// A collective as a sequence of steps: messages that may pass at the same time, then work on what
// arrived.
#pragma once

#include <functional>
#include <vector>

#include "libswitch/comm/abort.h"
#include "libswitch/comm/group.h"
#include "libswitch/comm/trace.h"
#include "libswitch/comm/transport.h"

namespace sw {

class Schedule;

/// What the groups of one rank share.
struct RankState {
  int64_t rank = 0;  // in the world
  std::string host;
  bool crowded = false;  // more ranks than cores on this machine
  CommTrace trace;
  const AbortFlag* abort = nullptr;  // of the world; process_abort() is looked at as well
  std::vector<Schedule*> pending;    // under way; a wait for one advances the others
};

struct Step {
  struct Part {
    int64_t peer;
    void* data;
    int64_t bytes;
  };
  std::vector<Part> sends, receives;
  std::function<void()> then;  // may be empty

  // Nothing is sent for parts of no bytes: both sides know the size.
  void send(int64_t to, const void* data, int64_t bytes) {
    if (bytes > 0) sends.push_back({to, const_cast<void*>(data), bytes});
  }
  void receive(int64_t from, void* data, int64_t bytes) {
    if (bytes > 0) receives.push_back({from, data, bytes});
  }
};

class Schedule final : public PendingCollective {
 public:
  /// The steps' memory lies in tensors that `keep` or the caller holds. Nothing is sent before the
  /// first advance().
  Schedule(RankState& state, Transport* transport, int64_t tag, int64_t ticket,
           std::vector<Step> steps, std::vector<Tensor> keep);
  ~Schedule() override;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  bool advance() override;
  /// Throws hang when an abort flag is set while it waits.
  void finish() override;

 private:
  void post();
  void check_abort(double seconds) const;
  void advance_others() const;

  RankState& state_;
  Transport* transport_;
  int64_t tag_, ticket_;
  std::vector<Step> steps_;
  std::vector<Tensor> keep_;
  size_t step_ = 0;
  bool posted_ = false, done_ = false;
  std::vector<std::unique_ptr<Message>> messages_;  // of the step, unfinished
};

}  // namespace sw
