#include "libswitch/train/optimizer_owners.h"

#include <algorithm>
#include <numeric>

namespace sw {

std::vector<int64_t> assign_owners(const std::vector<ParameterSpec>& specs, const MeshShape& mesh) {
  std::vector<size_t> order(specs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return specs[a].elements() > specs[b].elements(); });
  std::vector<int64_t> owners(specs.size());
  std::vector<int64_t> load(static_cast<size_t>(mesh.data));  // elements, by data rank
  for (const size_t p : order) {
    // A replica of the experts is `expert` neighbouring data ranks.
    const int64_t width = specs[p].expert() ? mesh.expert : 1;
    const auto load_of = [&](int64_t owner) {
      const auto first = load.begin() + owner * width;
      return std::accumulate(first, first + width, int64_t{0});
    };
    int64_t best = 0;
    for (int64_t owner = 1; owner < mesh.data / width; ++owner) {
      if (load_of(owner) < load_of(best)) best = owner;
    }
    owners[p] = best;
    for (int64_t rank = best * width; rank < (best + 1) * width; ++rank) {
      load[static_cast<size_t>(rank)] += specs[p].elements() / width;
    }
  }
  return owners;
}

}  // namespace sw
