// A router report for people, at most 80 columns wide.
#pragma once

#include <string>
#include <vector>

#include "libswitch/report/drawing.h"
#include "libswitch/report/router_drift.h"
#include "libswitch/report/router_report.h"

namespace sw {

/// Verdicts, then where the figures come from, then a row per layer: number, name, sorted load,
/// max/mean, variation, entropy, Gini, dead and starving experts, dropped share, confidence,
/// capacity use; means of encoder and decoder; with data what routing follows. `color`: ANSI
/// colours.
std::string report_text(const RouterReport& report, bool color = false);

/// One layer: its figures, their course over training, the ten most and the ten least loaded
/// experts with bars or, from data, with the tokens that set them apart.
std::string layer_text(const RouterReport& report, int64_t layer, bool color = false);

/// How load, drops, dead experts and entropy moved over training, a row per layer.
std::string over_time_text(const RouterReport& report, bool color = false);
/// One layer over training: its figures, and the load of the ten most and ten least loaded experts.
std::string layer_over_time_text(const RouterReport& report, int64_t layer, bool color = false);

/// Two checkpoints: per layer the share of the load that moved, how alike the routers are, loads
/// side by side in the order of the first, figures before and after.
std::string comparison_text(const RouterReport& before, const RouterReport& after,
                            const std::vector<LayerDrift>& drift, bool color = false);

/// Lines that several of these begin with.
std::string verdict_lines(const std::vector<Verdict>& lines, bool color);
std::string heading(const RouterReport& report);

/// Loads over the mean of the experts in `order`.
std::vector<double> loads_in(const RouterStatistics& statistics, const std::vector<int64_t>& order);
/// The load that a full block stands for: twice the mean, so that layers can be compared, or more
/// where an expert has more.
double load_top(const std::vector<double>& loads);
/// Columns of the layers' names in a table.
int name_width(const RouterReport& report);
/// The rows of a table of experts: all, or the ten first and the ten last of `order`.
std::vector<int64_t> shown_experts(const std::vector<int64_t>& order);

/// What a report from data adds (report/text_routing_text.cpp): to the whole, and to one layer.
std::string text_routing_text(const RouterReport& report);
std::string layer_tokens_text(const RouterReport& report, const LayerReport& layer);
/// The tokens of each expert that set it apart, "▁the 812 4.1x, ...", in at most `columns`.
std::vector<std::string> expert_token_lines(const RouterReport& report, const LayerReport& layer,
                                            int columns);

}  // namespace sw
