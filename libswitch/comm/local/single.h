#pragma once

#include <string>

#include "libswitch/comm/group.h"

namespace sw {

/// The world of one rank, without any launcher.
World& single_world();

/// Name of this machine as the system knows it; "localhost" when it has none.
std::string host_name();

}  // namespace sw
