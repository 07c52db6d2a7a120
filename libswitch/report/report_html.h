// A router report as one page of HTML that needs nothing from outside.
#pragma once

#include <span>
#include <string>

#include "libswitch/report/router_drift.h"
#include "libswitch/report/router_report.h"

namespace sw {

/// Verdicts, a table of the layers, charts over training, and for every layer its sorted load, the
/// load of its experts over training, and with data the tokens, classes and domains of experts. Two
/// reports come one after the other, behind what changed between them. Light or dark as the
/// reader's system is; a table is behind every picture; 15 layers of 2,048 experts take some 4 MB.
std::string report_html(std::span<const RouterReport> reports,
                        std::span<const LayerDrift> drift = {});

/// What the page has of one layer's experts over data (report/html_tokens.cpp).
std::string tokens_html(const RouterReport& report, const LayerReport& layer);

/// A closed box that writes its table when it is opened. `id` is unique in the page; columns are
/// JSON arrays of equal length.
std::string table_box(const std::string& title, const std::string& id,
                      std::span<const std::string> head, std::span<const std::string> columns);

}  // namespace sw
