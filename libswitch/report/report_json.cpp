// JSON of a router report; declared in report_data.h.
#include <cmath>
#include <nlohmann/json.hpp>

#include "libswitch/report/load_figures.h"
#include "libswitch/report/report_data.h"

namespace sw {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json history_json(const RouterHistory& h) {
  return {{"max_over_mean", h.max_over_mean}, {"entropy", h.entropy},
          {"dropped_share", h.dropped_share}, {"dead", h.dead},
          {"starving", h.starving},           {"confidence", h.confidence}};
}

Json experts_json(const TextRouting& text, const LayerTokens& tokens, size_t most) {
  const auto tops = top_tokens(tokens, text.tokens(tokens.decoder), most);
  Json experts = Json::array();
  for (size_t e = 0; e < tops.size(); ++e) {
    Json top = Json::array();
    for (const TokenShare& t : tops[e]) {
      top.push_back({{"piece", text.piece(tokens.decoder, t.id)},
                     {"id", t.id},
                     {"count", t.count},
                     {"lift", t.lift}});
    }
    experts.push_back({{"expert", e}, {"tokens", tokens.load[e]}, {"top_tokens", std::move(top)}});
  }
  return experts;
}

// Of one layer.
Json tokens_json(const RouterReport& report, const LayerTokens& tokens, size_t most) {
  Json out = {
      {"confidence_deciles", tokens.confidence_deciles()},
      {"same_as_previous", tokens.same_share()},
      {"same_by_chance", tokens.same_by_chance()},
      {"decided_by_token", or_null(decided_by_token(tokens, report.text->tokens(tokens.decoder)))}};
  out["experts"] = experts_json(*report.text, tokens, most);
  const auto table = class_counts(tokens, report.text->classes);
  Json classes = Json::object();
  for (int c = 0; c < kTokenClasses; ++c) {
    classes[std::string(token_class_name(static_cast<TokenClass>(c)))] =
        table[static_cast<size_t>(c)];
  }
  out["classes"] = std::move(classes);
  Json domains = Json::object();
  for (size_t d = 0; d < report.data.size(); ++d) {
    domains[report.data[d].name] = tokens.domain_load[d];
  }
  out["domains"] = std::move(domains);
  const std::vector<std::span<const int64_t>> loads(tokens.domain_load.begin(),
                                                    tokens.domain_load.end());
  out["domain_divergence"] = jensen_shannon(loads);
  return out;
}

// The contract's keys of a layer in its order, then more; what is not known is left out.
Json layer_json(const RouterReport& report, const LayerReport& layer,
                const ReportJsonParts& parts) {
  const nlohmann::json all = to_json(layer.statistics);
  const LoadFigures load = load_figures(layer.statistics);
  Json out;
  for (const char* key : {"name", "experts", "tokens", "load", "max_over_mean", "entropy", "dead",
                          "dropped_share", "confidence", "aux_loss", "z_loss", "token_entropy"}) {
    out[key] = all.at(key);
  }
  out["min_over_mean"] = load.min_over_mean;
  out["cv"] = load.cv;
  out["gini"] = load.gini;
  out["starving"] = load.starving;
  if (std::isfinite(layer.capacity_use)) out["capacity_use"] = layer.capacity_use;
  if (layer.dead_since >= 0) out["dead_since"] = layer.dead_since;
  if (parts.history) out["history"] = history_json(layer.history);
  if (layer.tokens) out["routing"] = tokens_json(report, *layer.tokens, parts.tokens_an_expert);
  return out;
}

}  // namespace

Json report_json(const RouterReport& report, const ReportJsonParts& parts) {
  Json out = {{"checkpoint", report.checkpoint}, {"step", report.step}, {"digest", report.digest}};
  Json source;
  if (!report.data.empty()) {
    for (const DataDomain& domain : report.data) {
      source["data"].push_back(domain.file);
      source["names"].push_back(domain.name);
    }
  } else if (report.samples > 0) {
    source["telemetry"] = {{"samples", report.samples},
                           {"first_step", report.first_step},
                           {"last_step", report.last_step}};
  }
  out["source"] = source;
  if (parts.history) out["history_steps"] = report.history_steps;
  out["layers"] = Json::array();
  for (const LayerReport& layer : report.layers) {
    out["layers"].push_back(layer_json(report, layer, parts));
  }
  out["verdicts"] = Json::array();
  for (const Verdict& verdict : verdicts(report)) out["verdicts"].push_back(verdict.text);
  return out;
}

Json comparison_json(const RouterReport& before, const RouterReport& after,
                     const std::vector<LayerDrift>& drift, const ReportJsonParts& parts) {
  Json out = report_json(before, parts);
  out["other"] = report_json(after, parts);
  out["drift"] = Json::array();
  for (const LayerDrift& layer : drift) {
    Json row = {{"name", layer.name},
                {"load_drift", layer.load},
                {"router_cosine", or_null(layer.router_cosine)}};
    if (std::isfinite(layer.same_expert)) row["same_expert"] = layer.same_expert;
    out["drift"].push_back(std::move(row));
  }
  return out;
}

}  // namespace sw
