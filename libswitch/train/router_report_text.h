// A router report for people (at most 80 columns) and for programs (JSON, CSV).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "libswitch/train/router_report.h"

namespace sw {

/// Columns that a report for people takes at most.
inline constexpr int kReportColumns = 80;

/// One block character per value (U+2581 to U+2588), `top` being a full block; a value of 0 or
/// below is a dot. More values than `columns` are averaged in runs of equal length.
std::string sparkline(std::span<const double> values, double top, int columns);

/// Verdicts, then where the figures come from, then a row per layer: number, name, sorted load,
/// max/mean, entropy, dead experts, dropped share, confidence, aux loss. `color`: ANSI colours.
std::string report_text(const RouterReport& report, bool color = false);

/// One layer: its figures, their course over training, the ten most and the ten least loaded
/// experts with bars, and how many experts have which load.
std::string layer_text(const RouterReport& report, int64_t layer, bool color = false);

/// Two checkpoints: per layer the share of the load that moved, loads side by side in the order of
/// the first, figures before and after.
std::string comparison_text(const RouterReport& before, const RouterReport& after,
                            const std::vector<LayerDrift>& drift, bool color = false);

/// {"checkpoint", "step", "digest", "source", "layers": [...], "verdicts": [...]}; a layer is
/// to_json(RouterStatistics). Figures that are not known or not finite are null.
nlohmann::ordered_json report_json(const RouterReport& report);
/// report_json(before) with "other": report_json(after) and "drift": [{"name", "load_drift",
/// "router_cosine"}].
nlohmann::ordered_json comparison_json(const RouterReport& before, const RouterReport& after,
                                       const std::vector<LayerDrift>& drift);

/// A header and a line per layer (several reports: one after the other).
std::string report_csv(std::span<const RouterReport> reports);
/// A header and a line per expert of the report's layers.
std::string experts_csv(std::span<const RouterReport> reports);

}  // namespace sw
