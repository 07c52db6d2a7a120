#include "libswitch/train/router_report_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "libswitch/base/options_help.h"

namespace sw {
namespace {

constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr const char* kLeftBlocks[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
constexpr const char* kNone = "·";

std::string paint(const std::string& text, const char* code, bool color) {
  return color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
}

// `text` filled up with spaces to `width` columns; fmt would count bytes of block characters right,
// but not in every version.
std::string pad(const std::string& text, int width) {
  return text + std::string(static_cast<size_t>(std::max(0, width - display_width(text))), ' ');
}

// The end of `text` in at most `width` columns.
std::string shorten(const std::string& text, int width) {
  if (display_width(text) <= width) return text;
  size_t begin = 0;
  for (int drop = display_width(text) - width + 1; drop > 0 && begin < text.size(); --drop) {
    ++begin;
    while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) ++begin;
  }
  return "…" + text.substr(begin);
}

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

std::string source_text(const RouterReport& report) {
  if (!report.data.empty()) {
    return fmt::format("loads: {} run through the model", fmt::join(report.data, ", "));
  }
  if (report.samples == 0) return "";
  return fmt::format("loads: {} samples of telemetry, steps {} to {}", report.samples,
                     report.first_step, report.last_step);
}

std::string heading(const RouterReport& report) {
  const std::string tail = fmt::format(", step {}, digest {}", report.step, report.digest);
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
    loads.push_back(static_cast<double>(s.chosen[static_cast<size_t>(e)]) / total);
  }
  return loads;
}

// An even load is half a block high, so that layers can be compared, unless one expert has more
// than twice that.
double load_top(std::span<const double> loads) {
  double top = 0;
  for (const double load : loads) top = std::max(top, load);
  return std::max(top, loads.empty() ? 1.0 : 2.0 / static_cast<double>(loads.size()));
}

int name_width(const RouterReport& report) {
  int width = 5;
  for (const LayerReport& layer : report.layers) {
    width = std::max(width, display_width(layer.statistics.name));
  }
  return std::min(width, 24);
}

int64_t most_experts(const RouterReport& report) {
  int64_t most = 0;
  for (const LayerReport& layer : report.layers) most = std::max(most, layer.statistics.experts);
  return most;
}

int digits(int64_t value) { return static_cast<int>(fmt::format_int(value).size()); }

std::string number(double value, int decimals) {
  if (!std::isfinite(value)) return "-";
  if (std::abs(value) >= 1e4) return fmt::format("{:.1e}", value);
  return fmt::format("{:.{}f}", value, value >= 100 ? 1 : decimals);
}
std::string percent(double share) { return number(100 * share, 1) + "%"; }

std::string bar(double value, double top, int columns) {
  const double length = top > 0 ? std::clamp(value / top, 0.0, 1.0) * columns : 0;
  const auto eighths = static_cast<int>(std::lround(length * 8));
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  return text + kLeftBlocks[eighths % 8];
}

std::string course(const char* what, const std::vector<double>& values, double top, int decimals) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return fmt::format("  {:<10}{}  {} to {}, now {}\n", what,
                     sparkline(values, std::max(top, *high), 36), number(*low, decimals),
                     number(*high, decimals), number(values.back(), decimals));
}

std::string expert_rows(const RouterStatistics& s, const std::vector<int64_t>& order,
                        const std::vector<double>& loads, size_t begin, size_t end) {
  const int width = std::max(6, digits(s.experts - 1));
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    const auto e = static_cast<size_t>(order[i]);
    const double probability =
        s.tokens > 0 ? s.probability[e] / static_cast<double>(s.tokens) : 0.0;
    text += fmt::format("  {:>{}}  {:>6.2f}%  {:>6}  {:>6.2f}%  {}\n", order[i], width,
                        100 * loads[i], number(loads[i] * static_cast<double>(s.experts), 2),
                        100 * probability, bar(loads[i], loads.front(), 40));
  }
  return text;
}

// How many experts have which load, relative to an even one.
std::string load_classes(const RouterStatistics& s, const std::vector<double>& loads) {
  struct Class {
    double below;
    const char* name;
    int64_t experts = 0;
  };
  Class classes[] = {{0.01, "below 1% (dead)"}, {0.1, "1% to 10%"},         {0.5, "10% to 50%"},
                     {0.8, "50% to 80%"},       {1.25, "80% to 125%"},      {2, "125% to 200%"},
                     {4, "200% to 400%"},       {INFINITY, "400% and more"}};
  int64_t most = 1;
  for (const double load : loads) {
    const double relative = load * static_cast<double>(s.experts);
    for (Class& c : classes) {
      if (relative < c.below) {
        most = std::max(most, ++c.experts);
        break;
      }
    }
  }
  std::string text = "\nexperts by load relative to an even share\n";
  for (const Class& c : classes) {
    text += fmt::format("  {:<16} {:>5}  {}\n", c.name, c.experts,
                        bar(static_cast<double>(c.experts), static_cast<double>(most), 40));
  }
  return text;
}

// "a→b" with both sides formatted alike.
std::string change(const std::string& before, const std::string& after) {
  return before + "→" + after;
}

std::string pad_left(const std::string& text, int width) {
  return std::string(static_cast<size_t>(std::max(0, width - display_width(text))), ' ') + text;
}

}  // namespace

std::string sparkline(std::span<const double> values, double top, int columns) {
  const size_t n = values.size();
  const size_t width = std::min(n, static_cast<size_t>(std::max(columns, 1)));
  std::string text;
  for (size_t column = 0; column < width; ++column) {
    const size_t begin = column * n / width, end = (column + 1) * n / width;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += values[i];
    const double value = sum / static_cast<double>(end - begin);
    if (!(value > 0) || !(top > 0)) {
      text += kNone;
      continue;
    }
    const double level = std::ceil(std::min(value / top, 1.0) * 8 - 1e-9) - 1;
    text += kBlocks[static_cast<size_t>(std::clamp(level, 0.0, 7.0))];
  }
  return text;
}

std::string report_text(const RouterReport& report, bool color) {
  std::string text = verdict_lines(verdicts(report), color) + "\n" + heading(report);
  if (report.layers.empty()) return text;
  const int index = digits(static_cast<int64_t>(report.layers.size()) - 1);
  const int name = name_width(report);
  const int64_t experts = most_experts(report);
  const int dead = std::max(4, 2 * digits(experts) + 1);
  // index name spark max/mean entropy dead dropped conf aux, a space or two between
  const int others = index + 1 + name + 2 + 1 + 8 + 8 + 1 + dead + 8 + 6 + 8;
  const int spark = std::clamp(static_cast<int>(std::min<int64_t>(experts, 1000)), 4,
                               std::max(4, kReportColumns - others));
  text += fmt::format("\n{:>{}} {} {} {:>8} {:>7} {:>{}} {:>7} {:>5} {:>7}\n", "#", index,
                      pad("layer", name), pad(spark < 11 ? " load" : " sorted load", spark + 1),
                      "max/mean", "entropy", "dead", dead, "dropped", "conf", "aux");
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const RouterStatistics& s = report.layers[i].statistics;
    const std::vector<double> loads = loads_in(s, experts_by_load(s));
    const std::string row = fmt::format(
        "{:>{}} {}  {} {:>8} {:>7} {:>{}} {:>7} {:>5} {:>7}", i, index,
        pad(shorten(s.name, name), name), pad(sparkline(loads, load_top(loads), spark), spark),
        number(s.max_over_mean(), 2), number(s.load_entropy(), 3),
        fmt::format("{}/{}", s.dead(), s.experts), dead, percent(s.dropped_share()),
        number(s.confidence(), 3), number(s.aux(), 4));
    text += row + "\n";
  }
  return text;
}

std::string layer_text(const RouterReport& report, int64_t layer, bool color) {
  RouterReport only = report;
  only.layers = {report.layers.at(static_cast<size_t>(layer))};
  const LayerReport& shown = only.layers[0];
  const RouterStatistics& s = shown.statistics;
  std::string text = verdict_lines(verdicts(only), color) + "\n" + heading(report);
  text += fmt::format(
      "\nlayer {}, {}: {} experts, {} tokens, capacity {}\n"
      "max/mean {}, entropy {}, dead {}, dropped {}, confidence {}\n"
      "aux loss {}, z-loss {}, entropy of a token's probabilities {}\n",
      layer, s.name, s.experts, s.tokens, s.capacity, number(s.max_over_mean(), 3),
      number(s.load_entropy(), 4), s.dead(), percent(s.dropped_share()), number(s.confidence(), 4),
      number(s.aux(), 5), number(s.z(), 5), number(s.token_entropy(), 4));
  const RouterHistory& history = shown.history;
  if (history.max_over_mean.size() > 1) {
    text += fmt::format("\nover steps {} to {}\n", report.history_steps.front(),
                        report.history_steps.back());
    text += course("max/mean", history.max_over_mean, 2, 2);
    text += course("entropy", history.entropy, 1, 3);
    std::vector<double> dropped, dead;
    for (const double share : history.dropped_share) dropped.push_back(100 * share);
    for (const int64_t count : history.dead) dead.push_back(static_cast<double>(count));
    text += course("dropped %", dropped, 0, 1);
    text += course("dead", dead, 0, 0);
  }
  const std::vector<int64_t> order = experts_by_load(s);
  const std::vector<double> loads = loads_in(s, order);
  text += fmt::format("\n  {:>{}}  {:>7}  {:>6}  {:>7}\n", "expert",
                      std::max(6, digits(s.experts - 1)), "load", "x even", "prob");
  constexpr size_t kEach = 10;
  if (order.size() <= 2 * kEach) return text + expert_rows(s, order, loads, 0, order.size());
  text += expert_rows(s, order, loads, 0, kEach);
  text += fmt::format("  ({} experts between)\n", order.size() - 2 * kEach);
  text += expert_rows(s, order, loads, order.size() - kEach, order.size());
  return text + load_classes(s, loads);
}

std::string comparison_text(const RouterReport& before, const RouterReport& after,
                            const std::vector<LayerDrift>& drift, bool color) {
  std::string text;
  if (!drift.empty()) {
    const auto most =
        std::max_element(drift.begin(), drift.end(),
                         [](const LayerDrift& a, const LayerDrift& b) { return a.load < b.load; });
    text += fmt::format("load moved most in {}: {:.1f} % lies on other experts\n", most->name,
                        100 * most->load);
  }
  if (before.digest == after.digest) text += "same digest: the same weights and optimizer state\n";
  std::vector<Verdict> now = verdicts(after);
  for (Verdict& verdict : now) verdict.text = "now: " + verdict.text;
  text += verdict_lines(now, color) + "\n";
  text += heading(before) + heading(after);
  if (drift.empty()) return text;
  const int index = digits(static_cast<int64_t>(drift.size()) - 1);
  const int name = name_width(before);
  const int64_t experts = most_experts(before);
  const int dead = std::max(6, 2 * digits(experts) + 1);
  const int others = index + 1 + name + 7 + 12 + 1 + dead + 12 + 4;
  const int spark = std::clamp(static_cast<int>(std::min<int64_t>(experts, 1000)), 4,
                               std::max(4, (kReportColumns - others) / 2));
  text += fmt::format("\n{:>{}} {}  {} {} {:>6} {:>11} {:>{}} {:>11}\n", "#", index,
                      pad("layer", name), pad("load", spark), pad("then", spark), "moved",
                      "max/mean", "dead", dead, "dropped");
  for (size_t i = 0; i < drift.size(); ++i) {
    const RouterStatistics& a = before.layers[i].statistics;
    const RouterStatistics& b = after.layers[i].statistics;
    const std::vector<int64_t> order = experts_by_load(a);
    const std::vector<double> first = loads_in(a, order), second = loads_in(b, order);
    const double top = std::max(load_top(first), load_top(second));
    text += fmt::format(
        "{:>{}} {}  {} {} {:>6} {} {} {}\n", i, index, pad(shorten(a.name, name), name),
        pad(sparkline(first, top, spark), spark), pad(sparkline(second, top, spark), spark),
        percent(drift[i].load),
        pad_left(change(number(a.max_over_mean(), 2), number(b.max_over_mean(), 2)), 11),
        pad_left(change(std::to_string(a.dead()), std::to_string(b.dead())), dead),
        pad_left(change(number(100 * a.dropped_share(), 1), percent(b.dropped_share())), 11));
  }
  return text;
}

}  // namespace sw
