// How much memory this process may still take.
#pragma once

#include <cstdint>

namespace sw {

/// Bytes: the least of what the machine has free or can free, what the control group (version 2)
/// has left, and what the address space limit (ulimit -v) has left. An estimate: others take memory
/// too.
int64_t available_memory();

}  // namespace sw
