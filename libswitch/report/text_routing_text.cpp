// What --data adds to a router report; declared in report_text.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libswitch/base/options_help.h"
#include "libswitch/report/load_figures.h"
#include "libswitch/report/report_text.h"

namespace sw {
namespace {

std::string lift_text(double lift) { return number(lift, lift < 9.95 ? 1 : 0) + "x"; }

double share_of(int64_t count, int64_t all) {
  return all > 0 ? static_cast<double>(count) / static_cast<double>(all) : 0;
}

// The expert whose tokens differ most from the text, by Σ count · ln lift.
size_t most_special(const std::vector<std::vector<TokenShare>>& tops) {
  size_t best = 0;
  double most = -1;
  for (size_t e = 0; e < tops.size(); ++e) {
    double weight = 0;
    for (const TokenShare& t : tops[e]) weight += static_cast<double>(t.count) * std::log(t.lift);
    if (weight > most) best = e, most = weight;
  }
  return best;
}

std::string join_within(const std::vector<std::string>& parts, const char* between, int columns) {
  std::string text;
  for (const std::string& part : parts) {
    const std::string longer = text.empty() ? part : text + between + part;
    if (display_width(longer) > columns) continue;
    text = longer;
  }
  return text;
}

double divergence(const LayerTokens& tokens) {
  const std::vector<std::span<const int64_t>> loads(tokens.domain_load.begin(),
                                                    tokens.domain_load.end());
  return jensen_shannon(loads);
}

// Loads by domain, a row per layer.
std::string domains_table(const RouterReport& report, int index, int name) {
  constexpr int kLeast = 8;
  const auto domains = static_cast<int>(report.data.size());
  const int room = kReportColumns - index - 1 - name - 8;
  const int shown = std::min(domains, room / (kLeast + 1));
  const int spark = std::min(16, room / shown - 1);
  std::string text = fmt::format("\n{:>{}} {}  {:>6}", "#", index, pad("layer", name), "apart");
  for (int d = 0; d < shown; ++d) {
    text += " " + pad(cut(report.data[static_cast<size_t>(d)].name, spark), spark);
  }
  text += "\n";
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const LayerReport& layer = report.layers[i];
    const std::vector<int64_t> order = experts_by_load(layer.statistics);
    text +=
        fmt::format("{:>{}} {}  {:>6}", i, index, pad(shorten(layer.statistics.name, name), name),
                    number(divergence(*layer.tokens), 3));
    RouterStatistics of_domain;
    of_domain.experts = layer.statistics.experts;
    for (int d = 0; d < shown; ++d) {
      of_domain.chosen = layer.tokens->domain_load[static_cast<size_t>(d)];
      const std::vector<double> loads = loads_in(of_domain, order);
      text += " " + pad(sparkline(loads, load_top(loads), spark), spark);
    }
    text += "\n";
  }
  if (shown < domains) text += fmt::format("({} more: --json)\n", domains - shown);
  return text + "apart: Jensen-Shannon divergence of the domains' loads, 0 alike, 1 disjoint\n";
}

// Classes of tokens, and the experts that take most of each.
std::string classes_table(const RouterReport& report, const LayerTokens& tokens) {
  const std::vector<std::vector<int64_t>> table = class_counts(tokens, report.text->classes);
  const int64_t all = tokens.tokens();
  std::string text = fmt::format("\n  {:<16} {:>6}  {}\n", "class of tokens", "share",
                                 "experts: part of the class, lift over its load");
  for (int c = 0; c < kTokenClasses; ++c) {
    const std::vector<int64_t>& counts = table[static_cast<size_t>(c)];
    const int64_t of_class = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    if (of_class == 0) continue;
    std::vector<size_t> order(counts.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return counts[a] > counts[b]; });
    std::vector<std::string> parts;
    for (const size_t e : order) {
      const double part = share_of(counts[e], of_class);
      if (parts.size() == 4 || counts[e] == 0) break;
      parts.push_back(fmt::format("{}: {:.0f}% {}", e, 100 * part,
                                  lift_text(part / share_of(tokens.load[e], all))));
    }
    text += fmt::format("  {:<16} {:>6}  {}\n", token_class_name(static_cast<TokenClass>(c)),
                        percent(share_of(of_class, all)), join_within(parts, ", ", 52));
  }
  return text;
}

// How much more of a domain than of all text goes to an expert.
std::string domain_lifts(const RouterReport& report, const LayerReport& layer) {
  const LayerTokens& tokens = *layer.tokens;
  const size_t shown = std::min<size_t>(report.data.size(), 6);
  std::string text = fmt::format("\n  {:>6}", "expert");
  std::vector<int64_t> totals;
  for (size_t d = 0; d < shown; ++d) {
    text += pad_left(cut(report.data[d].name, 10), 11);
    const std::vector<int64_t>& load = tokens.domain_load[d];
    totals.push_back(std::accumulate(load.begin(), load.end(), int64_t{0}));
  }
  text += "   lift by domain\n";
  for (const int64_t e : shown_experts(experts_by_load(layer.statistics))) {
    const auto at = static_cast<size_t>(e);
    text += fmt::format("  {:>6}", e);
    for (size_t d = 0; d < shown; ++d) {
      const double load = share_of(tokens.load[at], tokens.tokens());
      const double here = share_of(tokens.domain_load[d][at], totals[d]);
      text += fmt::format("{:>11}", load > 0 ? lift_text(here / load) : "-");
    }
    text += "\n";
  }
  return text;
}

}  // namespace

std::string text_routing_text(const RouterReport& report) {
  if (!report.text) return "";
  const int index = digits(static_cast<int64_t>(report.layers.size()) - 1);
  const int name = name_width(report);
  std::string text =
      fmt::format("\n{:>{}} {}  {:>8} {:>7} {:>7}  {}\n", "#", index, pad("layer", name),
                  "by token", "same", "chance", "an expert of its own taste");
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const LayerReport& layer = report.layers[i];
    const LayerTokens& tokens = *layer.tokens;
    const std::vector<int64_t>& all = report.text->tokens(tokens.decoder);
    const auto tops = top_tokens(tokens, all, 20);
    const size_t e = most_special(tops);
    std::vector<std::string> parts;
    for (const TokenShare& t : tops[e]) {
      parts.push_back(report.text->piece(tokens.decoder, t.id) + " " + lift_text(t.lift));
    }
    const std::string taste = fmt::format("{}: ", e);
    const int room = kReportColumns - index - 1 - name - 2 - 8 - 8 - 8 - 2 - display_width(taste);
    text += fmt::format("{:>{}} {}  {:>8} {:>7} {:>7}  {}\n", i, index,
                        pad(shorten(layer.statistics.name, name), name),
                        percent(decided_by_token(tokens, all)), percent(tokens.same_share()),
                        percent(tokens.same_by_chance()),
                        parts.empty() ? "" : taste + join_within(parts, ", ", room));
  }
  text +=
      "by token: share of tokens that go where most of their kind go; same: where the\n"
      "token before went, and that by chance; 4x: four times its share of the text\n";
  return report.data.size() > 1 ? text + domains_table(report, index, name) : text;
}

std::vector<std::string> expert_token_lines(const RouterReport& report, const LayerReport& layer,
                                            int columns) {
  const LayerTokens& tokens = *layer.tokens;
  std::vector<std::string> lines;
  for (const auto& top : top_tokens(tokens, report.text->tokens(tokens.decoder), 10)) {
    std::vector<std::string> parts;
    for (const TokenShare& t : top) {
      parts.push_back(fmt::format("{} {} {}", report.text->piece(tokens.decoder, t.id), t.count,
                                  lift_text(t.lift)));
    }
    lines.push_back(join_within(parts, ", ", columns));
  }
  return lines;
}

std::string layer_tokens_text(const RouterReport& report, const LayerReport& layer) {
  if (!layer.tokens) return "";
  const LayerTokens& tokens = *layer.tokens;
  std::vector<std::string> deciles;
  for (const double value : tokens.confidence_deciles()) deciles.push_back(number(value, 3));
  std::string text = fmt::format(
      "\nconfidence deciles  {}\n"
      "same expert as the token before: {} of tokens, {} by chance\n"
      "where most tokens of their kind go: {} of tokens\n",
      fmt::join(deciles, " "), percent(tokens.same_share()), percent(tokens.same_by_chance()),
      percent(decided_by_token(tokens, report.text->tokens(tokens.decoder))));
  text += classes_table(report, tokens);
  return report.data.size() > 1 ? text + domain_lifts(report, layer) : text;
}

}  // namespace sw
