#include "libswitch/comm/abort.h"

namespace sw {

void AbortFlag::set(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (set_) return;
  reason_ = reason;
  set_.store(true, std::memory_order_release);
}

std::string AbortFlag::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

void AbortFlag::clear() {
  const std::lock_guard lock(mutex_);
  reason_.clear();
  set_ = false;
}

AbortFlag& process_abort() {
  static AbortFlag flag;
  return flag;
}

}  // namespace sw
