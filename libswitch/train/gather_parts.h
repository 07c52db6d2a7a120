// Values that ranks hold parts of, put together again in the order of the whole.
#pragma once

#include <vector>

#include "libswitch/comm/group.h"

namespace sw {

/// out[i] [size·n, ...]: the ranks' parts[i] [n, ...] one after the other by rank, all f64 on the
/// CPU and equal in shape everywhere. One collective for all of them together; none when there are
/// no parts or the group has one rank.
std::vector<Tensor> gather_parts(Group& group, const std::vector<Tensor>& parts);

}  // namespace sw
