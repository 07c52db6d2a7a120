// Where another thread of this process stands.
#pragma once

#include <pthread.h>

#include <string>

namespace sw {

/// The calls that `thread` is in, innermost first, a line each: "#0 0x7f.. name+0x12 (file)"; a
/// line that says so when it does not answer within `seconds` (it is stopped, or blocks signals).
/// Interrupts it by a signal (SIGRTMIN+3), whose handler this installs. Thread-safe.
std::string stack_of(pthread_t thread, double seconds = 2);

}  // namespace sw
