#include "libswitch/comm/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace sw {

const char* comm_kind_name(CommKind kind) {
  switch (kind) {
    case CommKind::all_reduce: return "all_reduce";
    case CommKind::reduce_scatter: return "reduce_scatter";
    case CommKind::all_gather: return "all_gather";
    case CommKind::broadcast: return "broadcast";
    case CommKind::all_to_all: return "all_to_all";
    case CommKind::barrier: return "barrier";
  }
  return "?";
}

std::string CommEvent::str() const {
  return fmt::format("{} #{} of group {}", comm_kind_name(kind), sequence, group);
}

double CommTrace::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t CommTrace::enter(std::string_view group, CommKind kind, int64_t sequence, int64_t bytes) {
  const int64_t ticket = count_.load(std::memory_order_relaxed);
  Slot& slot = slots_[static_cast<size_t>(ticket % kEvents)];
  std::array<uint64_t, 2> name{};
  std::memcpy(name.data(), group.data(), std::min(group.size(), sizeof name));
  slot.ticket.store(-1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);  // readers of new fields see the -1
  slot.sequence.store(sequence, std::memory_order_relaxed);
  slot.bytes.store(bytes, std::memory_order_relaxed);
  slot.kind.store(kind, std::memory_order_relaxed);
  slot.entered.store(now(), std::memory_order_relaxed);
  slot.left.store(-1, std::memory_order_relaxed);
  for (size_t i = 0; i < name.size(); ++i) {
    slot.group[i].store(name[i], std::memory_order_relaxed);
  }
  slot.ticket.store(ticket, std::memory_order_release);
  count_.store(ticket + 1, std::memory_order_release);
  return ticket;
}

void CommTrace::leave(int64_t ticket) {
  Slot& slot = slots_[static_cast<size_t>(ticket % kEvents)];
  if (slot.ticket.load(std::memory_order_relaxed) != ticket) return;  // overwritten long since
  slot.left.store(now(), std::memory_order_release);
}

std::optional<CommEvent> CommTrace::event(int64_t ticket) const {
  if (ticket < 0) return {};
  const Slot& slot = slots_[static_cast<size_t>(ticket % kEvents)];
  if (slot.ticket.load(std::memory_order_acquire) != ticket) return {};
  CommEvent event;
  std::array<char, 17> name{};
  for (size_t i = 0; i < slot.group.size(); ++i) {
    const uint64_t part = slot.group[i].load(std::memory_order_relaxed);
    std::memcpy(name.data() + i * sizeof part, &part, sizeof part);
  }
  event.group = name.data();
  event.kind = slot.kind.load(std::memory_order_relaxed);
  event.sequence = slot.sequence.load(std::memory_order_relaxed);
  event.bytes = slot.bytes.load(std::memory_order_relaxed);
  event.entered = slot.entered.load(std::memory_order_relaxed);
  event.left = slot.left.load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (slot.ticket.load(std::memory_order_relaxed) != ticket) return {};
  return event;
}

std::vector<CommEvent> CommTrace::events() const {
  std::vector<CommEvent> events;
  const int64_t end = count();
  for (int64_t ticket = std::max<int64_t>(0, end - kEvents); ticket < end; ++ticket) {
    if (auto found = event(ticket)) events.push_back(std::move(*found));
  }
  return events;
}

std::optional<CommEvent> CommTrace::waiting() const {
  return event(waiting_.load(std::memory_order_acquire));
}

std::string CommTrace::str() const {
  if (const auto event = waiting()) {
    return fmt::format("waiting in {} since {:.0f} s", event->str(), now() - event->entered);
  }
  if (const auto last = event(count() - 1)) {
    if (last->left < 0) return fmt::format("has begun {}", last->str());
    return fmt::format("last left {} {:.0f} s ago", last->str(), now() - last->left);
  }
  return "in no collective yet";
}

}  // namespace sw
