// What is wrong with a layer, in words; declared in router_report.h.
#include <fmt/format.h>

#include <algorithm>

#include "libswitch/report/drawing.h"
#include "libswitch/report/load_figures.h"
#include "libswitch/report/router_report.h"

namespace sw {
namespace {

constexpr double kMuchDropped = 0.05;
constexpr double kOverload = 2.0;
constexpr double kLowEntropy = 0.8;
constexpr double kUndecided = 1.1;

std::string faults(const LayerReport& layer) {
  const RouterStatistics& s = layer.statistics;
  std::vector<std::string> found;
  const int64_t dead = s.dead(kDeadShare);
  if (s.tokens == 0) return s.name + ": no token was routed";
  if (dead > 0) {
    found.push_back(
        fmt::format("{} of {} experts dead{}", dead, s.experts,
                    layer.dead_since >= 0 ? " since step " + grouped(layer.dead_since) : ""));
  }
  if (s.max_over_mean() > kOverload) {
    found.push_back(fmt::format("expert {} takes {:.1f} times an even share",
                                experts_by_load(s).front(), s.max_over_mean()));
  }
  if (s.load_entropy() < kLowEntropy) {
    found.push_back(fmt::format("load is concentrated (entropy {:.2f})", s.load_entropy()));
  }
  if (s.dropped_share() > kMuchDropped) {
    found.push_back(fmt::format("drops {:.1f} % of its tokens", 100 * s.dropped_share()));
  }
  if (s.experts > 1 && s.confidence() * static_cast<double>(s.experts) < kUndecided) {
    found.push_back(fmt::format("router does not decide (mean gate {:.3f}, {:.3f} is chance)",
                                s.confidence(), 1.0 / static_cast<double>(s.experts)));
  }
  if (found.empty()) return "";
  return fmt::format("{}: {}", s.name, fmt::join(found, "; "));
}

}  // namespace

std::vector<Verdict> verdicts(const RouterReport& report) {
  if (report.layers.empty()) return {{"a dense model: it has no sparse layers", true}};
  std::vector<Verdict> lines;
  double max_over_mean = 0, dropped = 0;
  for (const LayerReport& layer : report.layers) {
    max_over_mean = std::max(max_over_mean, layer.statistics.max_over_mean());
    dropped = std::max(dropped, layer.statistics.dropped_share());
    const std::string found = faults(layer);
    if (!found.empty()) lines.push_back({found, false});
  }
  if (!lines.empty()) return lines;
  const auto count = report.layers.size();
  return {{fmt::format(
               "{} in balance: max/mean at most {:.2f}, no dead expert, at most {:.1f} % of "
               "tokens dropped",
               count == 1 ? "the sparse layer is" : fmt::format("all {} sparse layers are", count),
               max_over_mean, 100 * dropped),
           true}};
}

}  // namespace sw
