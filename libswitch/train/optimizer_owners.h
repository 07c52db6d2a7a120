// Who updates which parameter when the optimizer's state is split over ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "libswitch/comm/mesh.h"
#include "libswitch/tape/parameter.h"

namespace sw {

/// By parameter, the rank that updates it: rank in mesh.replica() for expert parameters, in
/// mesh.data() for all others; the same for every model rank. The largest parameters go first, each
/// to the rank with the fewest elements so far.
std::vector<int64_t> assign_owners(const std::vector<ParameterSpec>& specs, const MeshShape& mesh);

}  // namespace sw
