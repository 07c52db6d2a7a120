#include "libswitch/report/report_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "libswitch/base/options_help.h"
#include "libswitch/report/load_figures.h"

namespace sw {
namespace {

std::string source_text(const RouterReport& report) {
  if (!report.data.empty()) {
    std::vector<std::string> files;
    for (const DataDomain& domain : report.data) files.push_back(domain.file);
    return fmt::format("loads: {} run through the model", fmt::join(files, ", "));
  }
  if (report.samples == 0) return "";
  return fmt::format("loads: {} samples of telemetry, steps {} to {}", report.samples,
                     grouped(report.first_step), grouped(report.last_step));
}

// Figures of a row of the table, in its order.
struct Row {
  double max = 0, cv = 0, entropy = 0, gini = 0, dead = 0, starving = 0, dropped = 0,
         confidence = 0, capacity_use = 0;
};
constexpr std::array kFigures = {&Row::max,     &Row::cv,         &Row::entropy,
                                 &Row::gini,    &Row::dead,       &Row::starving,
                                 &Row::dropped, &Row::confidence, &Row::capacity_use};
constexpr int kFigureColumns = 52;

std::string head() {
  return fmt::format(" {:>6}{:>6}{:>8}{:>5}{:>5}{:>6}{:>5}{:>5}{:>5}", "max", "cv", "entropy",
                     "gini", "dead", "starv", "drop", "conf", "full");
}

Row row_of(const LayerReport& layer) {
  const RouterStatistics& s = layer.statistics;
  const LoadFigures load = load_figures(s);
  return {s.max_over_mean(),
          load.cv,
          s.load_entropy(),
          load.gini,
          static_cast<double>(s.dead()),
          static_cast<double>(load.starving),
          s.dropped_share(),
          s.confidence(),
          layer.capacity_use};
}

std::string share(double value) {
  const std::string text = number(100 * value, value < 0.0995 ? 1 : 0);
  return text == "-" ? text : text + "%";
}

std::string count_text(double count, int decimals) {
  return fmt::format("{:.{}f}", count, count < 100 ? decimals : 0);
}

std::string figures(const Row& row, int decimals_of_counts) {
  const std::string full = number(100 * row.capacity_use, 0);
  return fmt::format(" {:>6}{:>6}{:>8}{:>5}{:>5}{:>6}{:>5}{:>5}{:>5}", number(row.max, 2),
                     number(row.cv, 2), number(row.entropy, 3), number(row.gini, 2),
                     count_text(row.dead, decimals_of_counts),
                     count_text(row.starving, decimals_of_counts), share(row.dropped),
                     number(row.confidence, 2), full == "-" ? full : full + "%");
}

// Means over the layers of the encoder and of the decoder, where both have several.
std::string stack_rows(const RouterReport& report, int width) {
  std::string text;
  for (const char* stack : {"encoder", "decoder"}) {
    Row mean;
    double layers = 0;
    for (const LayerReport& layer : report.layers) {
      if (!layer.statistics.name.starts_with(stack)) continue;
      const Row row = row_of(layer);
      for (const auto figure : kFigures) mean.*figure += row.*figure;
      ++layers;
    }
    if (layers < 2) return "";
    for (const auto figure : kFigures) mean.*figure /= layers;
    text += pad(fmt::format("mean of the {}", stack), width) + figures(mean, 1) + "\n";
  }
  return text;
}

}  // namespace

std::string verdict_lines(const std::vector<Verdict>& lines, bool color) {
  std::string text;
  for (const Verdict& verdict : lines) {
    bool first = true;
    for (const std::string& line : wrap_text(verdict.text, kReportColumns - 2)) {
      text += (first ? "" : "  ") + paint(line, verdict.good ? "32" : "31", color) + "\n";
      first = false;
    }
  }
  return text;
}

std::string heading(const RouterReport& report) {
  const std::string tail = fmt::format(", step {}, digest {}", grouped(report.step), report.digest);
  std::string text = shorten(report.checkpoint, kReportColumns - display_width(tail)) + tail + "\n";
  const std::string source = source_text(report);
  if (source.empty()) return text;
  for (const std::string& line : wrap_text(source, kReportColumns)) text += line + "\n";
  return text;
}

std::vector<double> loads_in(const RouterStatistics& s, const std::vector<int64_t>& order) {
  const auto total = static_cast<double>(
      std::max<int64_t>(1, std::accumulate(s.chosen.begin(), s.chosen.end(), int64_t{0})));
  std::vector<double> loads;
  for (const int64_t e : order) {
    loads.push_back(static_cast<double>(s.chosen[static_cast<size_t>(e)]) / total *
                    static_cast<double>(s.experts));
  }
  return loads;
}

double load_top(const std::vector<double>& loads) {
  return loads.empty() ? 2.0 : std::max(2.0, *std::max_element(loads.begin(), loads.end()));
}

int name_width(const RouterReport& report) {
  int width = 5;
  for (const LayerReport& layer : report.layers) {
    width = std::max(width, display_width(layer.statistics.name));
  }
  return std::min(width, 20);
}

std::vector<int64_t> shown_experts(const std::vector<int64_t>& order) {
  constexpr std::ptrdiff_t kEach = 10;
  if (order.size() <= 2 * kEach) return order;
  std::vector<int64_t> shown(order.begin(), order.begin() + kEach);
  shown.insert(shown.end(), order.end() - kEach, order.end());
  return shown;
}

std::string report_text(const RouterReport& report, bool color) {
  std::string text = verdict_lines(verdicts(report), color) + "\n" + heading(report);
  if (report.layers.empty()) return text;
  const int index = digits(static_cast<int64_t>(report.layers.size()) - 1);
  const int name = name_width(report);
  int64_t experts = 1;
  for (const LayerReport& layer : report.layers) {
    experts = std::max(experts, layer.statistics.experts);
  }
  const int spark = std::clamp(static_cast<int>(std::min<int64_t>(experts, 1000)), 4,
                               std::max(4, kReportColumns - index - 1 - name - 1 - kFigureColumns));
  text +=
      fmt::format("\n{:>{}} {} {}{}\n", "#", index, pad("layer", name), pad("load", spark), head());
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const LayerReport& layer = report.layers[i];
    const std::vector<double> loads = loads_in(layer.statistics, experts_by_load(layer.statistics));
    text += fmt::format(
        "{:>{}} {} {}{}\n", i, index, pad(shorten(layer.statistics.name, name), name),
        pad(sparkline(loads, load_top(loads), spark), spark), figures(row_of(layer), 0));
  }
  text += stack_rows(report, index + 1 + name + 1 + spark);
  return text + text_routing_text(report);
}

}  // namespace sw
