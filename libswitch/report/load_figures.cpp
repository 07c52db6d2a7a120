#include "libswitch/report/load_figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace sw {
namespace {

double total_of(std::span<const int64_t> counts) {
  return static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
}

double entropy_term(double p) { return p > 0 ? -p * std::log(p) : 0; }

}  // namespace

LoadFigures load_figures(std::span<const int64_t> loads) {
  LoadFigures figures;
  const double total = total_of(loads);
  if (!(total > 0)) return figures;
  const auto experts = static_cast<double>(loads.size());
  const double mean = total / experts;
  std::vector<int64_t> sorted(loads.begin(), loads.end());
  std::sort(sorted.begin(), sorted.end());
  figures.min_over_mean = static_cast<double>(sorted.front()) / mean;
  double squares = 0, ranked = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const double over_mean = static_cast<double>(sorted[i]) / mean;
    squares += (over_mean - 1) * (over_mean - 1);
    ranked += (2 * static_cast<double>(i) + 1 - experts) * over_mean;
    const bool dead = sorted[i] == 0 || over_mean < kDeadShare;
    figures.starving += !dead && over_mean < kStarvingShare;
  }
  figures.cv = std::sqrt(squares / experts);
  figures.gini = ranked / (experts * experts);
  return figures;
}

double jensen_shannon(std::span<const std::span<const int64_t>> distributions) {
  std::vector<double> mean;
  double entropies = 0, used = 0;
  for (const std::span<const int64_t> counts : distributions) {
    const double total = total_of(counts);
    if (!(total > 0)) continue;
    mean.resize(counts.size());
    for (size_t e = 0; e < counts.size(); ++e) {
      const double p = static_cast<double>(counts[e]) / total;
      mean[e] += p;
      entropies += entropy_term(p);
    }
    ++used;
  }
  if (used < 2) return 0;
  double of_mean = 0;
  for (const double sum : mean) of_mean += entropy_term(sum / used);
  return std::clamp((of_mean - entropies / used) / std::log(used), 0.0, 1.0);
}

}  // namespace sw
