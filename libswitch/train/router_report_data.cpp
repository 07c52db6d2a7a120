// JSON and CSV of a router report; declared in router_report_text.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libswitch/train/router_report_text.h"

namespace sw {
namespace {

// The contract's keys of a layer in its order; what telemetry does not know is left out.
nlohmann::ordered_json layer_json(const LayerReport& layer) {
  const nlohmann::json all = to_json(layer.statistics);
  nlohmann::ordered_json out;
  for (const char* key : {"name", "experts", "tokens", "load", "max_over_mean", "entropy", "dead",
                          "dropped_share", "confidence", "aux_loss", "z_loss", "token_entropy"}) {
    out[key] = all.at(key);
  }
  if (layer.statistics.slots > 0) out["capacity_use"] = all.at("capacity_use");
  if (layer.dead_since >= 0) out["dead_since"] = layer.dead_since;
  return out;
}

std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

}  // namespace

nlohmann::ordered_json report_json(const RouterReport& report) {
  nlohmann::ordered_json out = {
      {"checkpoint", report.checkpoint}, {"step", report.step}, {"digest", report.digest}};
  nlohmann::ordered_json source;
  if (!report.data.empty()) {
    source["data"] = report.data;
  } else if (report.samples > 0) {
    source["telemetry"] = {{"samples", report.samples},
                           {"first_step", report.first_step},
                           {"last_step", report.last_step}};
  }
  out["source"] = source;
  out["layers"] = nlohmann::ordered_json::array();
  for (const LayerReport& layer : report.layers) out["layers"].push_back(layer_json(layer));
  out["verdicts"] = nlohmann::ordered_json::array();
  for (const Verdict& verdict : verdicts(report)) out["verdicts"].push_back(verdict.text);
  return out;
}

nlohmann::ordered_json comparison_json(const RouterReport& before, const RouterReport& after,
                                       const std::vector<LayerDrift>& drift) {
  nlohmann::ordered_json out = report_json(before);
  out["other"] = report_json(after);
  out["drift"] = nlohmann::ordered_json::array();
  for (const LayerDrift& layer : drift) {
    out["drift"].push_back(
        {{"name", layer.name}, {"load_drift", layer.load}, {"router_cosine", layer.router_cosine}});
  }
  return out;
}

std::string report_csv(std::span<const RouterReport> reports) {
  std::string text =
      "checkpoint,step,layer,name,experts,tokens,max_over_mean,entropy,dead,dropped_share,"
      "confidence,aux_loss\n";
  for (const RouterReport& report : reports) {
    for (size_t i = 0; i < report.layers.size(); ++i) {
      const RouterStatistics& s = report.layers[i].statistics;
      text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", csv_text(report.checkpoint),
                          report.step, i, csv_text(s.name), s.experts, s.tokens, s.max_over_mean(),
                          s.load_entropy(), s.dead(), s.dropped_share(), s.confidence(), s.aux());
    }
  }
  return text;
}

std::string experts_csv(std::span<const RouterReport> reports) {
  std::string text = "checkpoint,step,name,expert,tokens,load,over_mean,mean_probability\n";
  for (const RouterReport& report : reports) {
    for (const LayerReport& layer : report.layers) {
      const RouterStatistics& s = layer.statistics;
      const double tokens = std::max<double>(1, static_cast<double>(s.tokens));
      for (int64_t e = 0; e < s.experts; ++e) {
        const double load = s.load(e);
        text += fmt::format("{},{},{},{},{},{},{},{}\n", csv_text(report.checkpoint), report.step,
                            csv_text(s.name), e, s.chosen[static_cast<size_t>(e)], load,
                            load * static_cast<double>(s.experts),
                            s.probability[static_cast<size_t>(e)] / tokens);
      }
    }
  }
  return text;
}

}  // namespace sw
