// Two checkpoints side by side; declared in report_text.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libswitch/report/report_text.h"

namespace sw {
namespace {

// "a→b" with both sides formatted alike.
std::string change(const std::string& before, const std::string& after) {
  return before + "→" + after;
}

}  // namespace

std::string comparison_text(const RouterReport& before, const RouterReport& after,
                            const std::vector<LayerDrift>& drift, bool color) {
  std::string text;
  if (!drift.empty()) {
    const auto most =
        std::max_element(drift.begin(), drift.end(),
                         [](const LayerDrift& a, const LayerDrift& b) { return a.load < b.load; });
    text += fmt::format("load moved most in {}: {:.1f} % lies on other experts\n", most->name,
                        100 * most->load);
    const auto least = std::min_element(
        drift.begin(), drift.end(),
        [](const LayerDrift& a, const LayerDrift& b) { return a.same_expert < b.same_expert; });
    if (std::isfinite(least->same_expert)) {
      text += fmt::format("tokens moved most in {}: {:.1f} % have the same expert in both\n",
                          least->name, 100 * least->same_expert);
    }
  }
  if (before.digest == after.digest) text += "same digest: the same weights and optimizer state\n";
  std::vector<Verdict> now = verdicts(after);
  for (Verdict& verdict : now) verdict.text = "now: " + verdict.text;
  text += verdict_lines(now, color) + "\n";
  text += heading(before) + heading(after);
  if (drift.empty()) return text;
  const int index = digits(static_cast<int64_t>(drift.size()) - 1);
  const int name = name_width(before);
  int64_t experts = 1;
  for (const LayerReport& layer : before.layers) {
    experts = std::max(experts, layer.statistics.experts);
  }
  const int dead = std::max(4, 2 * digits(experts) + 1);
  const int others = index + 1 + name + 2 + 1 + 7 + 7 + 7 + 14 + 1 + dead;
  const int spark = std::clamp(static_cast<int>(std::min<int64_t>(experts, 1000)), 3,
                               std::max(3, (kReportColumns - others) / 2));
  text +=
      fmt::format("\n{:>{}} {}  {} {}{:>7}{:>7}{:>7}{:>14} {:>{}}\n", "#", index,
                  pad("layer", name), pad(cut("then", spark), spark), pad(cut("now", spark), spark),
                  "moved", "cosine", "same", "max/mean", "dead", dead);
  for (size_t i = 0; i < drift.size(); ++i) {
    const RouterStatistics& a = before.layers[i].statistics;
    const RouterStatistics& b = after.layers[i].statistics;
    const std::vector<int64_t> order = experts_by_load(a);
    const std::vector<double> first = loads_in(a, order), second = loads_in(b, order);
    const double top = std::max(load_top(first), load_top(second));
    text += fmt::format(
        "{:>{}} {}  {} {}{:>7}{:>7}{:>7}{} {}\n", i, index, pad(shorten(a.name, name), name),
        pad(sparkline(first, top, spark), spark), pad(sparkline(second, top, spark), spark),
        percent(drift[i].load), number(drift[i].router_cosine, 3), percent(drift[i].same_expert),
        pad_left(change(number(a.max_over_mean(), 2), number(b.max_over_mean(), 2)), 14),
        pad_left(change(std::to_string(a.dead()), std::to_string(b.dead())), dead));
  }
  text +=
      "\nmoved: share of the load now on other experts; cosine: mean over experts, of\n"
      "their router weights before and after; same: ";
  text += std::isfinite(drift[0].same_expert) ? "share of tokens with the same expert\n"
                                              : "needs --data\n";
  return text;
}

}  // namespace sw
