// CSV of a router report; declared in report_data.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libswitch/report/load_figures.h"
#include "libswitch/report/report_data.h"

namespace sw {
namespace {

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

// Empty where it is not known.
std::string field(double value) { return std::isfinite(value) ? fmt::format("{}", value) : ""; }

// Of an expert, "▁the ▁of ▁a".
std::string top_pieces(const TextRouting& text, bool decoder, const std::vector<TokenShare>& top) {
  std::vector<std::string> pieces;
  for (const TokenShare& t : top) pieces.push_back(text.piece(decoder, t.id));
  return fmt::format("{}", fmt::join(pieces, " "));
}

}  // namespace

std::string report_csv(std::span<const RouterReport> reports, std::span<const LayerDrift> drift) {
  const double unknown = std::nan("");
  std::string text =
      "checkpoint,step,layer,name,experts,tokens,max_over_mean,entropy,dead,dropped_share,"
      "confidence,aux_loss,z_loss,token_entropy,min_over_mean,cv,gini,starving,capacity_use,"
      "dead_since,same_as_previous,same_by_chance,decided_by_token,load_drift,router_cosine,"
      "same_expert\n";
  for (size_t r = 0; r < reports.size(); ++r) {
    const RouterReport& report = reports[r];
    for (size_t i = 0; i < report.layers.size(); ++i) {
      const LayerReport& layer = report.layers[i];
      const RouterStatistics& s = layer.statistics;
      const LoadFigures load = load_figures(s);
      text += fmt::format(
          "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},", quoted(report.checkpoint),
          report.step, i, quoted(s.name), s.experts, s.tokens, s.max_over_mean(), s.load_entropy(),
          s.dead(), s.dropped_share(), s.confidence(), s.aux(), s.z(), s.token_entropy(),
          load.min_over_mean, load.cv, load.gini, load.starving, field(layer.capacity_use),
          layer.dead_since >= 0 ? std::to_string(layer.dead_since) : "");
      const LayerTokens* t = layer.tokens.get();
      text += fmt::format(
          "{},{},{},", field(t != nullptr ? t->same_share() : unknown),
          field(t != nullptr ? t->same_by_chance() : unknown),
          field(t != nullptr ? decided_by_token(*t, report.text->tokens(t->decoder)) : unknown));
      const bool has_drift = r == 1 && i < drift.size();
      text += fmt::format("{},{},{}\n", field(has_drift ? drift[i].load : unknown),
                          field(has_drift ? drift[i].router_cosine : unknown),
                          field(has_drift ? drift[i].same_expert : unknown));
    }
  }
  return text;
}

std::string experts_csv(std::span<const RouterReport> reports) {
  constexpr size_t kTokens = 10;
  std::string text = "checkpoint,step,name,expert,tokens,load,over_mean,mean_probability";
  // With data, its domains' loads and the expert's tokens; of one checkpoint, or of two that ran
  // over the same.
  const bool data = !reports.empty() && reports[0].text != nullptr;
  if (data) {
    for (const DataDomain& domain : reports[0].data) text += "," + quoted("load in " + domain.name);
    text += ",top_tokens";
  }
  text += "\n";
  for (const RouterReport& report : reports) {
    for (const LayerReport& layer : report.layers) {
      const RouterStatistics& s = layer.statistics;
      const double tokens = std::max<double>(1, static_cast<double>(s.tokens));
      std::vector<std::vector<TokenShare>> tops;
      if (layer.tokens) {
        tops = top_tokens(*layer.tokens, report.text->tokens(layer.tokens->decoder), kTokens);
      }
      for (int64_t e = 0; e < s.experts; ++e) {
        const auto at = static_cast<size_t>(e);
        const double load = s.load(e);
        text += fmt::format("{},{},{},{},{},{},{},{}", quoted(report.checkpoint), report.step,
                            quoted(s.name), e, s.chosen[at], load,
                            load * static_cast<double>(s.experts), s.probability[at] / tokens);
        if (layer.tokens) {
          RouterStatistics of_domain;
          for (const std::vector<int64_t>& counts : layer.tokens->domain_load) {
            of_domain.chosen = counts;
            text += fmt::format(",{}", of_domain.load(e));
          }
          text += "," + quoted(top_pieces(*report.text, layer.tokens->decoder, tops[at]));
        }
        text += "\n";
      }
    }
  }
  return text;
}

std::string history_csv(std::span<const RouterReport> reports) {
  std::string text =
      "checkpoint,step,name,max_over_mean,entropy,dropped_share,dead,starving,confidence\n";
  for (const RouterReport& report : reports) {
    for (size_t t = 0; t < report.history_steps.size(); ++t) {
      for (const LayerReport& layer : report.layers) {
        const RouterHistory& h = layer.history;
        text += fmt::format("{},{},{},{},{},{},{},{},{}\n", quoted(report.checkpoint),
                            report.history_steps[t], quoted(layer.statistics.name),
                            h.max_over_mean[t], h.entropy[t], h.dropped_share[t], h.dead[t],
                            h.starving[t], h.confidence[t]);
      }
    }
  }
  return text;
}

}  // namespace sw
