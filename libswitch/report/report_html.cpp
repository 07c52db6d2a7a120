#include "libswitch/report/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libswitch/report/html_assets.h"
#include "libswitch/report/html_picture.h"
#include "libswitch/report/load_figures.h"
#include "libswitch/report/report_text.h"

namespace sw {
namespace {

std::string cell(const std::string& text, bool bad = false) {
  return fmt::format("<td{}>{}</td>", bad ? " class=bad" : "", text);
}

// A JSON array that may stand inside a script element.
template <class Value>
std::string array_of(const std::vector<Value>& values, int decimals) {
  std::string text = "[";
  for (const auto value : values) {
    if (text.size() > 1) text += ',';
    if (!std::isfinite(static_cast<double>(value))) {
      text += "null";
    } else {
      text += fmt::format("{:.{}f}", static_cast<double>(value), decimals);
    }
  }
  return text + "]";
}

// Rows of a table behind a chart.
constexpr size_t kMostRows = 512;

template <class Value>
std::vector<Value> every_nth(const std::vector<Value>& values, size_t n) {
  std::vector<Value> out;
  for (size_t i = n - 1; i < values.size(); i += n) out.push_back(values[i]);
  return out;
}

std::string color_of(const RouterReport& report, size_t layer) {
  const auto decoder = [&](size_t i) {
    return report.layers[i].statistics.name.starts_with("decoder");
  };
  int before = 0, all = 0;
  for (size_t i = 0; i < report.layers.size(); ++i) {
    if (decoder(i) != decoder(layer)) continue;
    before += i < layer;
    ++all;
  }
  // The encoder goes from violet to green, the decoder from red to yellow.
  const double part = all > 1 ? static_cast<double>(before) / (all - 1) : 0.3;
  return fmt::format("hsl({:.0f} 65% 52%)", decoder(layer) ? 5 + 45 * part : 265 - 120 * part);
}

std::string title_html(const RouterReport& report) {
  std::string text =
      fmt::format("<p><code>{}</code>, step {}, digest <code>{}</code></p>",
                  html_escape(report.checkpoint), grouped(report.step), html_escape(report.digest));
  if (!report.data.empty()) {
    text += "<p class=faint>Loads: the model run over ";
    for (size_t i = 0; i < report.data.size(); ++i) {
      text += fmt::format("{}<code>{}</code>", i > 0 ? ", " : "", html_escape(report.data[i].file));
    }
    text += "</p>";
  } else if (report.samples > 0) {
    text += fmt::format("<p class=faint>Loads: {} samples of telemetry, steps {} to {}</p>",
                        report.samples, grouped(report.first_step), grouped(report.last_step));
  }
  return text;
}

std::string verdicts_html(const RouterReport& report) {
  std::string text = "<ul class=verdicts>";
  for (const Verdict& verdict : verdicts(report)) {
    text +=
        fmt::format("<li{}>{}</li>", verdict.good ? " class=good" : "", html_escape(verdict.text));
  }
  return text + "</ul>";
}

std::string layers_table(const RouterReport& report) {
  std::string text =
      "<div class=wide><table class=figures><caption>Load: the experts' shares, sorted; the dashed "
      "line is an even share. Click a heading to sort.</caption><thead><tr>"
      "<th>layer<th>load<th>experts<th>tokens<th>max/mean<th>min/mean<th>cv<th>entropy<th>Gini"
      "<th>dead<th>starving<th>dropped<th>confidence<th>slots used</tr></thead><tbody>";
  for (const LayerReport& layer : report.layers) {
    const RouterStatistics& s = layer.statistics;
    const LoadFigures load = load_figures(s);
    const std::vector<double> loads = loads_in(s, experts_by_load(s));
    text += "<tr>" + cell(html_escape(s.name)) + cell(bars_svg(loads, load_top(loads), 1, 90, 24)) +
            cell(grouped(s.experts)) + cell(grouped(s.tokens)) +
            cell(number(s.max_over_mean(), 2), s.max_over_mean() > 2) +
            cell(number(load.min_over_mean, 2)) + cell(number(load.cv, 2)) +
            cell(number(s.load_entropy(), 3), s.load_entropy() < 0.8) + cell(number(load.gini, 2)) +
            cell(std::to_string(s.dead()), s.dead() > 0) + cell(std::to_string(load.starving)) +
            cell(percent(s.dropped_share()), s.dropped_share() > 0.05) +
            cell(number(s.confidence(), 3)) + cell(percent(layer.capacity_use)) + "</tr>";
  }
  return text + "</tbody></table></div>";
}

// A chart of one figure of all layers, and its table.
template <class Series>
std::string chart(const RouterReport& report, const std::string& id, const char* title,
                  double bottom, double top, int decimals, const Series& series) {
  std::vector<ChartLine> lines;
  const size_t every = (report.history_steps.size() + kMostRows - 1) / kMostRows;
  std::vector<std::string> head = {"step"};
  std::vector<std::string> columns = {array_of(every_nth(report.history_steps, every), 0)};
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const std::vector<double> values = series(report.layers[i].history);
    head.push_back(report.layers[i].statistics.name);
    columns.push_back(array_of(every_nth(values, every), decimals));
    lines.push_back({report.layers[i].statistics.name, color_of(report, i), values});
  }
  return fmt::format("<figure><figcaption class=title>{}</figcaption>{}{}</figure>", title,
                     lines_svg(lines, report.history_steps, bottom, top),
                     table_box(every > 1 ? fmt::format("table, one sample in {}", every) : "table",
                               id, head, columns));
}

std::string charts_html(const RouterReport& report, const std::string& id) {
  if (report.history_steps.size() < 2) return "";
  const auto doubles = [](const std::vector<int64_t>& v) {
    return std::vector<double>(v.begin(), v.end());
  };
  std::string text = fmt::format(
      "<h2>Over training</h2><p class=faint>{} samples of telemetry, steps {} to {}.</p><p "
      "class=faint>",
      grouped(static_cast<int64_t>(report.history_steps.size())),
      grouped(report.history_steps.front()), grouped(report.history_steps.back()));
  for (size_t i = 0; i < report.layers.size(); ++i) {
    text += fmt::format("<span class=chip><span class=key style='background:{}'></span>{}</span>",
                        color_of(report, i), html_escape(report.layers[i].statistics.name));
  }
  text += "</p><div class=charts>";
  text += chart(report, id + "-max", "Largest load over the mean", 1, 1, 4,
                [](const RouterHistory& h) { return h.max_over_mean; });
  text += chart(report, id + "-drop", "Share of tokens dropped", 0, 0, 5,
                [](const RouterHistory& h) { return h.dropped_share; });
  text += chart(report, id + "-dead", "Dead experts", 0, 1, 0,
                [&](const RouterHistory& h) { return doubles(h.dead); });
  text += chart(report, id + "-entropy", "Normalised entropy of the load", 1, 1, 4,
                [](const RouterHistory& h) { return h.entropy; });
  text += chart(report, id + "-confidence", "Mean gate of the chosen expert", 0, 0, 4,
                [](const RouterHistory& h) { return h.confidence; });
  return text + "</div>";
}

// Experts by falling load from top to bottom, parts of the run from left to right.
std::string heat_html(const RouterReport& report, const LayerReport& layer) {
  const auto experts = layer.statistics.experts;
  const auto columns = static_cast<int64_t>(report.course_steps.size());
  if (columns < 2) return "";
  std::vector<uint8_t> pixels;
  for (const int64_t e : experts_by_load(layer.statistics)) {
    for (int64_t c = 0; c < columns; ++c) {
      pixels.push_back(
          heat_of(static_cast<double>(layer.course[static_cast<size_t>(c * experts + e)])));
    }
  }
  return fmt::format(
      "<figure><img class=heat style='height:{}px' alt='load of experts over training' "
      "src='data:image/png;base64,{}'><figcaption>Experts over training, steps {} to {}, the most "
      "loaded on top; load over the mean 1/8<span class=scale></span>8, <span class=zero></span> "
      "none</figcaption></figure>",
      std::clamp<int64_t>(experts * 14, 90, 420), base64(heat_png(columns, experts, pixels)),
      grouped(report.history_steps.front()), grouped(report.history_steps.back()));
}

std::string layer_html(const RouterReport& report, size_t index, const std::string& id) {
  const LayerReport& layer = report.layers[index];
  const RouterStatistics& s = layer.statistics;
  const std::vector<int64_t> order = experts_by_load(s);
  const std::vector<double> loads = loads_in(s, order);
  std::string text = fmt::format(
      "<details class=layer{}><summary>{}: max/mean {}, {} dead, {} dropped</summary>"
      "<div class=charts><figure>{}<figcaption>Load over the mean, sorted; largest {}, even load "
      "dashed. Loss of balance {}, z-loss {}.</figcaption></figure>{}</div>",
      report.layers.size() <= 4 ? " open" : "", html_escape(s.name), number(s.max_over_mean(), 2),
      s.dead(), percent(s.dropped_share()), bars_svg(loads, load_top(loads), 1, 460, 160),
      number(loads.front(), 2), number(s.aux(), 4), number(s.z(), 4), heat_html(report, layer));
  std::vector<int64_t> chosen;
  std::vector<double> probability;
  for (const int64_t e : order) {
    chosen.push_back(s.chosen[static_cast<size_t>(e)]);
    probability.push_back(
        s.tokens > 0 ? s.probability[static_cast<size_t>(e)] / static_cast<double>(s.tokens) : 0);
  }
  const std::vector<std::string> head = {"expert", "tokens", "load over mean", "mean probability"};
  const std::vector<std::string> columns = {array_of(order, 0), array_of(chosen, 0),
                                            array_of(loads, 3), array_of(probability, 5)};
  text += table_box("experts", fmt::format("{}-experts-{}", id, index), head, columns);
  return text + tokens_html(report, layer) + "</details>";
}

std::string drift_html(std::span<const LayerDrift> drift) {
  if (drift.empty()) return "";
  std::string text =
      "<h2>From the first to the second</h2><div class=wide><table class=figures><caption>moved: "
      "share of the load now on other experts; cosine: mean over experts, of their router weights; "
      "same expert: share of tokens, needs data</caption><thead><tr><th>layer<th>moved"
      "<th>cosine<th>same expert</tr></thead><tbody>";
  for (const LayerDrift& layer : drift) {
    text += "<tr>" + cell(html_escape(layer.name)) + cell(percent(layer.load)) +
            cell(number(layer.router_cosine, 4)) + cell(percent(layer.same_expert)) + "</tr>";
  }
  return text + "</tbody></table></div>";
}

}  // namespace

std::string table_box(const std::string& title, const std::string& id,
                      std::span<const std::string> head, std::span<const std::string> columns) {
  std::string names = nlohmann::json(std::vector<std::string>(head.begin(), head.end()))
                          .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  for (size_t at = 0; (at = names.find('<', at)) != std::string::npos;) {
    names.replace(at, 1, "\\u003c");
  }
  return fmt::format(
      "<details data-table='{0}'><summary>{1}</summary><script type='application/json' id='{0}'>"
      "{{\"head\":{2},\"columns\":[{3}]}}</script></details>",
      id, title, names, fmt::join(columns, ","));
}

std::string report_html(std::span<const RouterReport> reports, std::span<const LayerDrift> drift) {
  std::string text =
      "<!DOCTYPE html><html lang=en><head><meta charset=utf-8>"
      "<meta name=viewport content='width=device-width,initial-scale=1'><title>Router "
      "report</title>"
      "<style>";
  text += kPageStyle;
  text += "</style></head><body><h1>Router report</h1>";
  text += drift_html(drift);
  for (size_t r = 0; r < reports.size(); ++r) {
    const RouterReport& report = reports[r];
    const std::string id = fmt::format("r{}", r);
    if (reports.size() > 1) text += fmt::format("<h2>{}</h2>", r == 0 ? "The first" : "The second");
    text += title_html(report) + verdicts_html(report);
    if (report.layers.empty()) continue;
    text += "<h2>Layers</h2>" + layers_table(report) + charts_html(report, id);
    text += "<h2>Experts</h2>";
    for (size_t i = 0; i < report.layers.size(); ++i) text += layer_html(report, i, id);
  }
  text += "<script>";
  text += kPageScript;
  return text + "</script></body></html>\n";
}

}  // namespace sw
