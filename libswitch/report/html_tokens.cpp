// Tokens, classes and domains of a layer's experts; declared in report_html.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libswitch/report/html_picture.h"
#include "libswitch/report/load_figures.h"
#include "libswitch/report/report_html.h"
#include "libswitch/report/report_text.h"

namespace sw {
namespace {

// Rows of a table that a reader can take in.
constexpr size_t kMostRows = 64;

double share_of(int64_t count, int64_t all) {
  return all > 0 ? static_cast<double>(count) / static_cast<double>(all) : 0;
}

std::string lift_cell(double lift) {
  if (!std::isfinite(lift)) return "<td>-</td>";
  // From the page's background at 1 to the bars' colour at 4 and more.
  const double strength = std::clamp(std::log2(std::max(lift, 1e-3)) / 2, 0.0, 1.0);
  return fmt::format(
      "<td style='background:color-mix(in srgb, var(--bar) {:.0f}%, transparent)'>{}</td>",
      60 * strength, number(lift, lift < 9.95 ? 1 : 0));
}

std::vector<int64_t> most_loaded(const LayerReport& layer) {
  std::vector<int64_t> experts = experts_by_load(layer.statistics);
  if (experts.size() > kMostRows) experts.resize(kMostRows);
  return experts;
}

std::string top_tokens_table(const RouterReport& report, const LayerReport& layer) {
  const LayerTokens& tokens = *layer.tokens;
  const auto tops = top_tokens(tokens, report.text->tokens(tokens.decoder), 12);
  std::string text =
      "<h3>Tokens that set experts apart</h3><div class=wide><table class=figures><caption>"
      "number, and lift: how much more often than in the text</caption><thead><tr><th>expert"
      "<th>tokens<th class=left>its tokens</tr></thead><tbody>";
  for (const int64_t e : most_loaded(layer)) {
    const auto at = static_cast<size_t>(e);
    text += fmt::format("<tr><td>{}</td><td>{}</td><td class='left tokens'>", e,
                        grouped(tokens.load[at]));
    for (const TokenShare& t : tops[at]) {
      text +=
          fmt::format("<span class=chip><code>{}</code> <span class=faint>{} · {}x</span></span>",
                      html_escape(report.text->piece(tokens.decoder, t.id)), grouped(t.count),
                      number(t.lift, t.lift < 9.95 ? 1 : 0));
    }
    text += "</td></tr>";
  }
  return text + "</tbody></table></div>";
}

// Lifts of groups of tokens (classes, domains) on experts, a column each.
std::string lift_table(const LayerReport& layer, const std::string& title,
                       const std::vector<std::string>& names,
                       const std::vector<std::vector<int64_t>>& counts) {
  const LayerTokens& tokens = *layer.tokens;
  std::string text = fmt::format(
      "<h3>{}</h3><div class=wide><table class=figures><caption>lift: an expert's part of the "
      "column over its part of all tokens</caption><thead><tr><th>expert",
      title);
  std::vector<int64_t> totals;
  for (size_t c = 0; c < names.size(); ++c) {
    totals.push_back(std::accumulate(counts[c].begin(), counts[c].end(), int64_t{0}));
    text += "<th>" + html_escape(names[c]);
  }
  text += "</tr></thead><tbody><tr><td>share of tokens</td>";
  for (const int64_t total : totals) {
    text += "<td>" + percent(share_of(total, tokens.tokens())) + "</td>";
  }
  text += "</tr>";
  for (const int64_t e : most_loaded(layer)) {
    const auto at = static_cast<size_t>(e);
    text += fmt::format("<tr><td>{}</td>", e);
    for (size_t c = 0; c < names.size(); ++c) {
      text += lift_cell(share_of(counts[c][at], totals[c]) /
                        share_of(tokens.load[at], tokens.tokens()));
    }
    text += "</tr>";
  }
  return text + "</tbody></table></div>";
}

}  // namespace

std::string tokens_html(const RouterReport& report, const LayerReport& layer) {
  if (!layer.tokens) return "";
  const LayerTokens& tokens = *layer.tokens;
  std::vector<std::string> deciles;
  for (const double value : tokens.confidence_deciles()) deciles.push_back(number(value, 3));
  std::string text = fmt::format(
      "<p>Same expert as the token before: {} of tokens, {} by chance. Where most tokens of their "
      "kind go: {} of tokens. Deciles of confidence: {}.</p>",
      percent(tokens.same_share()), percent(tokens.same_by_chance()),
      percent(decided_by_token(tokens, report.text->tokens(tokens.decoder))),
      fmt::join(deciles, ", "));
  text += top_tokens_table(report, layer);
  const auto table = class_counts(tokens, report.text->classes);
  std::vector<std::string> names;
  std::vector<std::vector<int64_t>> counts;
  for (int c = 0; c < kTokenClasses; ++c) {
    const std::vector<int64_t>& row = table[static_cast<size_t>(c)];
    if (std::accumulate(row.begin(), row.end(), int64_t{0}) == 0) continue;
    names.emplace_back(token_class_name(static_cast<TokenClass>(c)));
    counts.push_back(row);
  }
  text += lift_table(layer, "Kinds of tokens", names, counts);
  if (report.data.size() > 1) {
    names.clear();
    for (const DataDomain& domain : report.data) names.push_back(domain.name);
    const std::vector<std::span<const int64_t>> loads(tokens.domain_load.begin(),
                                                      tokens.domain_load.end());
    text += lift_table(
        layer,
        fmt::format("Domains, {} apart (Jensen-Shannon, 0 to 1)", number(jensen_shannon(loads), 3)),
        names, tokens.domain_load);
  }
  if (layer.statistics.experts > static_cast<int64_t>(kMostRows)) {
    text += fmt::format("<p class=faint>The {} most loaded experts; --csv has all.</p>", kMostRows);
  }
  return text;
}

}  // namespace sw
