// How routing moved over training; declared in report_text.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/report/report_text.h"

namespace sw {
namespace {

std::vector<double> as_doubles(const std::vector<int64_t>& counts) {
  return {counts.begin(), counts.end()};
}

// A layer's figure in at most `columns` means of equal parts of the run.
std::vector<double> parts_of(const std::vector<double>& values, int columns) {
  const size_t n = values.size(), count = std::min(n, static_cast<size_t>(columns));
  std::vector<double> parts;
  for (size_t c = 0; c < count; ++c) {
    const size_t begin = c * n / count, end = (c + 1) * n / count;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += values[i];
    parts.push_back(sum / static_cast<double>(end - begin));
  }
  return parts;
}

// A figure of all layers on one scale, so that rows can be compared.
struct Courses {
  std::vector<std::vector<double>> rows;
  double low = INFINITY, high = -INFINITY;

  template <class Series>
  Courses(const RouterReport& report, int columns, const Series& series) {
    for (const LayerReport& layer : report.layers) {
      rows.push_back(parts_of(series(layer.history), columns));
      for (const double value : rows.back()) {
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
  }
};

void check_history(const RouterReport& report) {
  SW_CHECK(report.data.empty(), usage,
           "a view over time reads telemetry, and --data runs the model as it is now");
}

std::string span_line(const RouterReport& report) {
  return fmt::format("{} samples of telemetry, steps {} to {}, from left to right\n",
                     grouped(static_cast<int64_t>(report.history_steps.size())),
                     grouped(report.history_steps.front()), grouped(report.history_steps.back()));
}

std::string title(const RouterReport& report) {
  RouterReport named = report;
  named.samples = 0;  // the heading's second line speaks of the samples that are summed
  return heading(named);
}

std::string course(const char* what, const std::vector<double>& values, double bottom, double top,
                   int decimals) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return fmt::format("  {:<11}{}  {} to {}, now {}\n", what,
                     sparkline_between(values, std::min(bottom, *low), std::max(top, *high), 36),
                     number(*low, decimals), number(*high, decimals),
                     number(values.back(), decimals));
}

}  // namespace

std::string over_time_text(const RouterReport& report, bool color) {
  check_history(report);
  std::string text = verdict_lines(verdicts(report), color) + "\n" + title(report);
  if (report.layers.empty() || report.history_steps.empty()) return text;
  text += span_line(report);
  const int index = digits(static_cast<int64_t>(report.layers.size()) - 1);
  const int name = name_width(report);
  // After each course its last value.
  const int spark = std::max(4, (kReportColumns - index - 1 - name - 4 * 2 - 24) / 4);
  const Courses max(report, spark, [](const RouterHistory& h) { return h.max_over_mean; });
  const Courses dropped(report, spark, [](const RouterHistory& h) { return h.dropped_share; });
  const Courses dead(report, spark, [](const RouterHistory& h) { return as_doubles(h.dead); });
  const Courses entropy(report, spark, [](const RouterHistory& h) { return h.entropy; });
  const auto column = [&](const std::string& what, int value) {
    return "  " + pad(what, spark + value);
  };
  text += fmt::format("\n{:>{}} {}{}{}{}{}\n", "#", index, pad("layer", name),
                      column("max/mean", 7), column("dropped", 6), column("dead", 5), "  entropy");
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const RouterHistory& h = report.layers[i].history;
    const std::string& layer = report.layers[i].statistics.name;
    text += fmt::format("{:>{}} {}  {}{:>7}  {}{:>6}  {}{:>5}  {}{:>6}\n", i, index,
                        pad(shorten(layer, name), name),
                        pad(sparkline_between(max.rows[i], 1, max.high, spark), spark),
                        number(h.max_over_mean.back(), 2),
                        pad(sparkline(dropped.rows[i], dropped.high, spark), spark),
                        percent(h.dropped_share.back()),
                        pad(sparkline(dead.rows[i], dead.high, spark), spark), h.dead.back(),
                        pad(sparkline_between(entropy.rows[i], entropy.low, 1, spark), spark),
                        number(h.entropy.back(), 3));
  }
  return text +
         fmt::format(
             "\nfigures: at the last step; blocks: means of parts of the run, one scale, up to\n"
             "max/mean {}, dropped {}, dead {}, and entropy from {} to 1\n",
             number(max.high, 2), percent(dropped.high), number(dead.high, 1),
             number(entropy.low, 3));
}

std::string layer_over_time_text(const RouterReport& report, int64_t layer, bool color) {
  check_history(report);
  RouterReport only = report;
  only.layers = {report.layers.at(static_cast<size_t>(layer))};
  const LayerReport& shown = only.layers[0];
  const RouterHistory& h = shown.history;
  std::string text = verdict_lines(verdicts(only), color) + "\n" + title(report);
  text += fmt::format("layer {}, {}\n", layer, shown.statistics.name) + span_line(report) + "\n";
  std::vector<double> dropped;
  for (const double share : h.dropped_share) dropped.push_back(100 * share);
  text += course("max/mean", h.max_over_mean, 1, 2, 2);
  text += course("entropy", h.entropy, 1, 1, 3);
  text += course("dropped %", dropped, 0, 1, 1);
  text += course("dead", as_doubles(h.dead), 0, 1, 0);
  text += course("starving", as_doubles(h.starving), 0, 1, 0);
  text += course("confidence", h.confidence, 1, 0, 3);

  const std::vector<int64_t> order = experts_by_load(shown.statistics);
  const std::vector<int64_t> experts = shown_experts(order);
  const auto count = static_cast<size_t>(shown.statistics.experts);
  const size_t columns = shown.course.size() / std::max<size_t>(1, count);
  double top = 2;
  for (const float value : shown.course) top = std::max(top, static_cast<double>(value));
  text += fmt::format("\n  {:>6}  {}  x even\n", "expert", pad("load", 48));
  for (size_t i = 0; i < experts.size(); ++i) {
    if (experts.size() < order.size() && i == experts.size() / 2) {
      text += fmt::format("  ({} experts between)\n", order.size() - experts.size());
    }
    std::vector<double> loads;
    for (size_t c = 0; c < columns; ++c) {
      loads.push_back(
          static_cast<double>(shown.course[c * count + static_cast<size_t>(experts[i])]));
    }
    text += fmt::format("  {:>6}  {}  {:>6}\n", experts[i], pad(sparkline(loads, top, 48), 48),
                        number(loads.back(), 2));
  }
  return text + fmt::format("\na full block is {} times an even share\n", number(top, 2));
}

}  // namespace sw
