// One layer of a router report; declared in report_text.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libswitch/report/load_figures.h"
#include "libswitch/report/report_text.h"

namespace sw {
namespace {

// How many experts have which load, relative to an even one.
std::string load_classes(const std::vector<double>& loads) {
  struct Class {
    double below;
    const char* name;
    int64_t experts = 0;
  };
  Class classes[] = {{kDeadShare, "below 1% (dead)"},
                     {kStarvingShare, "1% to 10%"},
                     {0.5, "10% to 50%"},
                     {0.8, "50% to 80%"},
                     {1.25, "80% to 125%"},
                     {2, "125% to 200%"},
                     {4, "200% to 400%"},
                     {INFINITY, "400% and more"}};
  int64_t most = 1;
  for (const double load : loads) {
    for (Class& c : classes) {
      if (load < c.below) {
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

// Most and least loaded experts; beside them bars, or the tokens that set them apart.
std::string expert_rows(const RouterReport& report, const LayerReport& layer,
                        const std::vector<int64_t>& order) {
  const RouterStatistics& s = layer.statistics;
  const bool tokens = layer.tokens != nullptr;
  const int width = std::max(6, digits(s.experts - 1));
  std::vector<std::string> beside;
  if (tokens) beside = expert_token_lines(report, layer, kReportColumns - width - 31);
  std::string text = fmt::format("\n  {:>{}}  {:>7}  {:>6}  {:>7}{}\n", "expert", width, "load",
                                 "x even", "prob", tokens ? "  tokens, their number and lift" : "");
  const std::vector<int64_t> shown = shown_experts(order);
  const std::vector<double> loads = loads_in(s, shown);
  for (size_t i = 0; i < shown.size(); ++i) {
    const auto e = static_cast<size_t>(shown[i]);
    if (shown.size() < order.size() && i == shown.size() / 2) {
      text += fmt::format("  ({} experts between)\n", order.size() - shown.size());
    }
    const double probability =
        s.tokens > 0 ? s.probability[e] / static_cast<double>(s.tokens) : 0.0;
    text += fmt::format("  {:>{}}  {:>6.2f}%  {:>6}  {:>6.2f}%  {}\n", e, width,
                        100 * loads[i] / static_cast<double>(s.experts), number(loads[i], 2),
                        100 * probability, tokens ? beside[e] : bar(loads[i], loads.front(), 40));
  }
  return text;
}

}  // namespace

std::string layer_text(const RouterReport& report, int64_t layer, bool color) {
  RouterReport only = report;
  only.layers = {report.layers.at(static_cast<size_t>(layer))};
  const LayerReport& shown = only.layers[0];
  const RouterStatistics& s = shown.statistics;
  const LoadFigures load = load_figures(s);
  std::string text = verdict_lines(verdicts(only), color) + "\n" + heading(report);
  text += fmt::format(
      "\nlayer {}, {}: {} experts, {} tokens\n"
      "load      max/mean {}, min/mean {}, cv {}, entropy {}, Gini {}\n"
      "experts   dead {}, starving {}\n"
      "tokens    dropped {}, confidence {}, entropy of their probabilities {}\n"
      "capacity  {} slots an expert, {} full\n"
      "losses    aux {}, z {}\n",
      layer, s.name, grouped(s.experts), grouped(s.tokens), number(s.max_over_mean(), 3),
      number(load.min_over_mean, 3), number(load.cv, 3), number(s.load_entropy(), 4),
      number(load.gini, 3), s.dead(), load.starving, percent(s.dropped_share()),
      number(s.confidence(), 4), number(s.token_entropy(), 4), grouped(s.capacity),
      percent(shown.capacity_use), number(s.aux(), 5), number(s.z(), 5));
  const std::vector<int64_t> order = experts_by_load(s);
  text += expert_rows(report, shown, order);
  if (order.size() > 20) text += load_classes(loads_in(s, order));
  return text + layer_tokens_text(report, shown);
}

}  // namespace sw
