// How the routing of one model changed between two of its checkpoints.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "libswitch/report/router_report.h"

namespace sw {

/// One layer.
struct LayerDrift {
  std::string name;
  /// Share of the load that lies on other experts: half the sum of absolute differences, in [0, 1].
  double load = 0;
  /// Mean cosine between the old and the new router column of an expert; NaN when it is not known.
  double router_cosine = std::numeric_limits<double>::quiet_NaN();
  /// Share of tokens that both send to the same expert (router saturation, Muennighoff et al. 2024,
  /// section 5.1); NaN unless both ran over the same data.
  double same_expert = std::numeric_limits<double>::quiet_NaN();
};

/// Layer by layer. Throws corrupt when the layers' names or numbers of experts differ.
std::vector<LayerDrift> router_drift(const RouterReport& before, const RouterReport& after);
/// Reads the routers' weights and fills in the cosines.
void add_router_cosines(const CheckpointReader& before, const CheckpointReader& after,
                        std::vector<LayerDrift>& drift);

}  // namespace sw
