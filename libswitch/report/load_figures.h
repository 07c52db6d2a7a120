// How unevenly a layer's load lies on its experts, beyond the figures of RouterStatistics.
#pragma once

#include <cstdint>
#include <span>

#include "libswitch/moe/statistics.h"

namespace sw {

/// An expert with a smaller share of an even load than this is dead, ...
inline constexpr double kDeadShare = 0.01;
/// ... and one with a smaller share than this, but not dead, starves.
inline constexpr double kStarvingShare = 0.1;

struct LoadFigures {
  double min_over_mean = 0;
  double cv = 0;    // standard deviation over mean; 0 is even, √(E-1) collapsed
  double gini = 0;  // half the mean absolute difference over the mean; 0 is even, 1-1/E collapsed
  int64_t starving = 0;  // experts
};

/// Of E loads on any scale; all 0 when there is no load.
LoadFigures load_figures(std::span<const int64_t> loads);
inline LoadFigures load_figures(const RouterStatistics& layer) {
  return load_figures(layer.chosen);
}

/// Jensen-Shannon divergence of distributions over the same experts, each given by counts and all
/// with the same weight, over its largest possible value ln n: 0 when they are equal, 1 when no two
/// share an expert. Distributions without counts are left out; 0 for fewer than two.
double jensen_shannon(std::span<const std::span<const int64_t>> distributions);

}  // namespace sw
