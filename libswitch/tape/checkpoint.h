// Recomputation: trade a second forward pass of a segment for the memory of what it would have
// saved.
#pragma once

#include <functional>
#include <vector>

#include "libswitch/tape/context.h"

namespace sw {

using Segment = std::function<std::vector<Var>(Context&, const std::vector<Var>&)>;

/// Runs `segment` without recording and appends one record that runs it again when the backward
/// pass arrives, then walks that inner tape. Gradients are bit-equal to those of the plain call:
/// randomness is counter-based, routing plans are kept (ReplayStore) and never made again.
/// Parameters used inside need no mention.
std::vector<Var> checkpoint(Context& context, const Segment& segment,
                            const std::vector<Var>& inputs);

}  // namespace sw
