// A router report for programs: JSON and CSV.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "libswitch/report/router_drift.h"
#include "libswitch/report/router_report.h"

namespace sw {

/// Parts of the JSON that are left out by default.
struct ReportJsonParts {
  bool history = false;          // every layer's figures over time
  size_t tokens_an_expert = 15;  // of the tokens that set an expert apart
};

/// {"checkpoint", "step", "digest", "source", "layers": [...], "verdicts": [...]}; a layer is
/// to_json(RouterStatistics) and what else is known of it. Figures that are not known or not finite
/// are null or left out.
nlohmann::ordered_json report_json(const RouterReport& report, const ReportJsonParts& parts = {});
/// report_json(before) with "other": report_json(after) and "drift": [{"name", "load_drift",
/// "router_cosine", "same_expert"}].
nlohmann::ordered_json comparison_json(const RouterReport& before, const RouterReport& after,
                                       const std::vector<LayerDrift>& drift,
                                       const ReportJsonParts& parts = {});

/// A header and a line per layer (several reports: one after the other); drift, of two, goes into
/// the lines of the second.
std::string report_csv(std::span<const RouterReport> reports,
                       std::span<const LayerDrift> drift = {});
/// A header and a line per expert of the report's layers.
std::string experts_csv(std::span<const RouterReport> reports);
/// A header and a line per sampled step and layer.
std::string history_csv(std::span<const RouterReport> reports);

}  // namespace sw
