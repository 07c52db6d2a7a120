#include "libswitch/comm/schedule.h"

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/comm/backoff.h"

namespace sw {

Schedule::Schedule(RankState& state, Transport* transport, int64_t tag, int64_t ticket,
                   std::vector<Step> steps, std::vector<Tensor> keep)
    : state_(state),
      transport_(transport),
      tag_(tag),
      ticket_(ticket),
      steps_(std::move(steps)),
      keep_(std::move(keep)) {
  state_.pending.push_back(this);
}

Schedule::~Schedule() { std::erase(state_.pending, this); }

void Schedule::post() {
  // Receives first: a message that finds its receive waiting needs no copy.
  for (const Step::Part& part : steps_[step_].receives) {
    messages_.push_back(transport_->receive(part.peer, tag_, part.data, part.bytes));
  }
  for (const Step::Part& part : steps_[step_].sends) {
    messages_.push_back(transport_->send(part.peer, tag_, part.data, part.bytes));
  }
  posted_ = true;
}

bool Schedule::advance() {
  if (done_) return true;
  for (; step_ < steps_.size(); ++step_, posted_ = false) {
    if (!posted_) post();
    std::erase_if(messages_,
                  [](const std::unique_ptr<Message>& message) { return message->test(); });
    if (!messages_.empty()) return false;
    if (steps_[step_].then) steps_[step_].then();
  }
  done_ = true;
  state_.trace.leave(ticket_);
  std::erase(state_.pending, this);
  steps_.clear();
  keep_.clear();
  return true;
}

void Schedule::advance_others() const {
  // A finished schedule leaves the list, hence backwards by index.
  for (size_t i = state_.pending.size(); i-- > 0;) {
    if (i < state_.pending.size() && state_.pending[i] != this) state_.pending[i]->advance();
  }
}

void Schedule::finish() {
  struct Clock {
    CommTrace& trace;
    double begin = CommTrace::now();
    ~Clock() { trace.add_seconds(CommTrace::now() - begin); }
  } clock{state_.trace};
  if (advance()) return;
  state_.trace.set_waiting(ticket_);
  struct NoLonger {
    CommTrace& trace;
    ~NoLonger() { trace.set_waiting(-1); }
  } no_longer{state_.trace};
  Backoff backoff(state_.crowded);
  for (int64_t look = 1; !advance(); ++look) {
    const double seconds = backoff.seconds();
    if (look % 16 == 0 || seconds > 1e-4) advance_others();
    check_abort(seconds);
    backoff.pause();
  }
}

void Schedule::check_abort(double seconds) const {
  const AbortFlag* flag = process_abort().is_set()                            ? &process_abort()
                          : state_.abort != nullptr && state_.abort->is_set() ? state_.abort
                                                                              : nullptr;
  if (flag == nullptr) return;
  const auto event = state_.trace.event(ticket_);
  fail(ErrorKind::hang, "rank {} ({}): gave up after {:.1f} s in {}: {}", state_.rank, state_.host,
       seconds, event ? event->str() : "a collective", flag->reason());
}

}  // namespace sw
