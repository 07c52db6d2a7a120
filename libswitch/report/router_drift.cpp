#include "libswitch/report/router_drift.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libswitch/base/error.h"

namespace sw {
namespace {

double choices(const RouterStatistics& s) {
  return static_cast<double>(std::accumulate(s.chosen.begin(), s.chosen.end(), int64_t{0}));
}

// Of the tokens that both reports followed, in the same order.
double same_expert(const LayerReport& before, const LayerReport& after) {
  if (!before.tokens || !after.tokens) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<int32_t>& a = before.tokens->path;
  const std::vector<int32_t>& b = after.tokens->path;
  if (a.empty() || a.size() != b.size()) return std::numeric_limits<double>::quiet_NaN();
  int64_t same = 0;
  for (size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
  return static_cast<double>(same) / static_cast<double>(a.size());
}

// Mean over experts (columns) of the cosine between two routers [D, E].
double mean_cosine(const Tensor& a, const Tensor& b) {
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  if (a.dtype() != DType::f32 || b.dtype() != DType::f32 || !(a.shape() == b.shape()) ||
      a.shape().rank() != 2) {
    return unknown;
  }
  const int64_t width = a.shape()[0], experts = a.shape()[1];
  std::vector<double> ab(static_cast<size_t>(experts)), aa(ab), bb(ab);
  for (int64_t d = 0; d < width; ++d) {
    const float* x = a.data<float>() + d * experts;
    const float* y = b.data<float>() + d * experts;
    for (int64_t e = 0; e < experts; ++e) {
      const auto at = static_cast<size_t>(e);
      ab[at] += static_cast<double>(x[e]) * static_cast<double>(y[e]);
      aa[at] += static_cast<double>(x[e]) * static_cast<double>(x[e]);
      bb[at] += static_cast<double>(y[e]) * static_cast<double>(y[e]);
    }
  }
  double sum = 0;
  for (size_t e = 0; e < ab.size(); ++e) {
    const double norm = std::sqrt(aa[e] * bb[e]);
    sum += norm > 0 ? ab[e] / norm : 0;
  }
  return experts > 0 ? sum / static_cast<double>(experts) : unknown;
}

}  // namespace

std::vector<LayerDrift> router_drift(const RouterReport& before, const RouterReport& after) {
  SW_CHECK(before.layers.size() == after.layers.size(), corrupt,
           "cannot compare {} with {}: {} sparse layers and {}", before.checkpoint,
           after.checkpoint, before.layers.size(), after.layers.size());
  std::vector<LayerDrift> drift;
  for (size_t i = 0; i < before.layers.size(); ++i) {
    const RouterStatistics& a = before.layers[i].statistics;
    const RouterStatistics& b = after.layers[i].statistics;
    SW_CHECK(a.name == b.name && a.experts == b.experts, corrupt,
             "cannot compare {} with {}: sparse layer {} is {} with {} experts, and {} with {}",
             before.checkpoint, after.checkpoint, i, a.name, a.experts, b.name, b.experts);
    double moved = 0;
    const double of_a = std::max(1.0, choices(a)), of_b = std::max(1.0, choices(b));
    for (size_t e = 0; e < a.chosen.size(); ++e) {
      moved += std::abs(static_cast<double>(a.chosen[e]) / of_a -
                        static_cast<double>(b.chosen[e]) / of_b);
    }
    LayerDrift layer;
    layer.name = a.name;
    layer.load = moved / 2;
    layer.same_expert = same_expert(before.layers[i], after.layers[i]);
    drift.push_back(std::move(layer));
  }
  return drift;
}

void add_router_cosines(const CheckpointReader& before, const CheckpointReader& after,
                        std::vector<LayerDrift>& drift) {
  for (LayerDrift& layer : drift) {
    const std::string path = router_path(layer.name);
    if (!before.contains(path) || !after.contains(path)) continue;
    layer.router_cosine = mean_cosine(before.read(path), after.read(path));
  }
}

}  // namespace sw
