// sw-inspect-router: what the routers of a checkpoint do.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/log.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/report/report_data.h"
#include "libswitch/report/report_html.h"
#include "libswitch/report/report_text.h"
#include "libswitch/report/router_condition.h"
#include "libswitch/report/router_drift.h"
#include "libswitch/report/router_report.h"
#include "tools/tool.h"

namespace sw {
namespace {

struct Options {
  std::vector<std::string> data;
  int64_t max_tokens = 0;
  std::string layer;
  bool over_time = false;
  bool csv = false;
  std::string html;
  std::string fail_if;
  int64_t samples = kReportSamples;
};

ToolDescription description() {
  ToolDescription tool;
  tool.name = "sw-inspect-router";
  tool.summary = "load, drops and dead experts of a checkpoint's routers";
  tool.usage = {"CHECKPOINT [--layer N] [--over-time] [--json|--csv|--html OUT.html]",
                "CHECKPOINT [CHECKPOINT2] --data [NAME=]H.swt ... [OPTION...]",
                "CHECKPOINT [CHECKPOINT2] --fail-if EXPR"};
  tool.examples = {"sw-inspect-router runs/a --json | jq '.layers[].dropped_share'",
                   "ssh host cat step.h5 | sw-inspect-router - --fail-if 'drop>5% or dead>0'"};
  tool.description =
      "CHECKPOINT is a .h5 file, a run folder (its newest checkpoint) or - for standard input. The "
      "figures come from the telemetry that training wrote into it; weights are not read, so a "
      "large file takes no longer than a small one: a second for 15 GB.\n\n"
      "Load is the share of the tokens that chose an expert. A row's blocks are the sorted loads; "
      "half a block is an even share. max is the largest load over the mean, cv the standard "
      "deviation over the mean, entropy that of the loads (1 is even, 0 all on one expert), gini 0 "
      "for even loads and near 1 for one expert, dead the experts with less than 1 % of an even "
      "share, starv those with 1 to 10 %, drop the share of the tokens that no expert processed, "
      "conf the mean gate of the chosen expert, full the share of the experts' slots that were "
      "used.\n\n"
      "--data runs the model over token shards as sw-eval does, with evaluation capacity, and says "
      "what routing follows: the tokens that an expert gets more of than its part (number, and "
      "lift over their share of the text), kinds of tokens (punctuation, numbers, English function "
      "words, ...), how often a token goes where the one before it went. Several files are "
      "compared as domains. In the encoder a token is an input, in the decoder the target before "
      "the one that is predicted.\n\n"
      "With two checkpoints of one model, each layer shows how much of the load has moved to other "
      "experts from the first to the second, how alike the routers' weights are, and with --data "
      "the share of tokens that both send to the same expert.\n\n"
      "--fail-if takes comparisons of drop, dead, starving, max, min, cv, gini, entropy, "
      "confidence, capacity, aux, z, tokens, experts, with --data same, and for two checkpoints "
      "drift, cosine and saturation with numbers, joined by and, or and parentheses; 5% is 0.05, "
      "and for dead and starving a share of the experts. When it holds for any layer of any "
      "checkpoint given, the exit code is 1.\n\n"
      "--json prints one object: checkpoint, step, digest, source, layers and verdicts; with "
      "--over-time history_steps and every layer's history, with --data every layer's routing "
      "(experts with their top_tokens, classes, domains, deciles), with two checkpoints other and "
      "drift.";
  tool.positional_name = "CHECKPOINT";
  tool.min_positionals = 1;
  tool.max_positionals = 2;
  tool.prints_results = true;
  tool.exit_notes = {{1, "the condition of --fail-if holds for a layer"}};
  tool.see_also = {"sw-pretrain(1)", "sw-eval(1)"};
  return tool;
}

void declare(OptionRegistry& registry, Options& options) {
  registry.group("inspect", "Inspection");
  registry.add("data", &options.data)
      .value_name("[NAME=]H.swt")
      .completes_files()
      .help("run the model over this shard, and show what goes where")
      .details("Several are compared as domains; NAME is by default the file's.");
  registry.add("max-tokens", &options.max_tokens)
      .at_least(0)
      .default_text("all")
      .help("tokens of each --data file to run");
  registry.add("layer", &options.layer)
      .value_name("N")
      .scope(Scope::command_line)
      .help("one layer and its experts, by number or name")
      .details("Sparse layers are numbered from 0, as the table shows.");
  registry.add("over-time", &options.over_time)
      .scope(Scope::command_line)
      .help("how load, drops, dead experts and entropy moved")
      .details(
          "Over the steps that the checkpoint remembers: recent ones all, older ones fewer. "
          "With --layer also the load of experts; with --json and --csv every step.");
  registry.add("csv", &options.csv)
      .scope(Scope::command_line)
      .help("print CSV, a line per layer")
      .details("With --layer a line per expert of that layer, with --over-time one per step.");
  registry.add("html", &options.html)
      .value_name("OUT.html")
      .completes_files()
      .scope(Scope::command_line)
      .help("write a page with tables and pictures; - is stdout")
      .details(
          "One file that needs nothing from outside: charts over training, experts as heat maps, "
          "a table behind every picture, light or dark as the reader's system is.");
  registry.add("fail-if", &options.fail_if)
      .value_name("EXPR")
      .scope(Scope::command_line)
      .help("exit with 1 when this holds for any layer");
  registry.add("samples", &options.samples)
      .value_name("N")
      .at_least(1)
      .help("sampled steps to sum up, the last N");
}

// The number of the layer that the user means.
int64_t find_layer(const RouterReport& report, const std::string& wanted) {
  const auto count = static_cast<int64_t>(report.layers.size());
  SW_CHECK(count > 0, usage, "--layer {}: {} has no sparse layers", wanted, report.checkpoint);
  int64_t number = -1;
  const char* end = wanted.data() + wanted.size();
  const auto [stop, error] = std::from_chars(wanted.data(), end, number);
  if (error == std::errc() && stop == end) {
    SW_CHECK(number >= 0 && number < count, usage,
             "--layer {}: {} has {} sparse layers; expected 0 to {}", wanted, report.checkpoint,
             count, count - 1);
    return number;
  }
  std::vector<std::string> names;
  for (const LayerReport& layer : report.layers) {
    if (layer.statistics.name == wanted) return static_cast<int64_t>(names.size());
    names.push_back(layer.statistics.name);
  }
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  fail(ErrorKind::usage, "--layer {}: {} has no sparse layer of this name; it has {}", wanted,
       report.checkpoint, list);
}

void keep_layer(RouterReport& report, int64_t layer) {
  report.layers = {report.layers.at(static_cast<size_t>(layer))};
}

// Logs each layer for which the condition holds; the number of them.
int64_t count_failures(const RouterCondition& condition, const std::vector<RouterReport>& reports,
                       const std::vector<LayerDrift>& drift) {
  int64_t failures = 0;
  for (const RouterReport& report : reports) {
    for (size_t i = 0; i < report.layers.size(); ++i) {
      const LayerReport& layer = report.layers[i];
      if (!condition.holds(layer, drift.empty() ? nullptr : &drift[i])) continue;
      log::error("{}: {}: {}", report.checkpoint, layer.statistics.name, condition.text());
      ++failures;
    }
  }
  return failures;
}

void check_options(const Options& options, const ToolRun& tool) {
  const std::vector<std::string>& names = tool.arguments;
  SW_CHECK(tool.common.json + options.csv + !options.html.empty() <= 1, usage,
           "--json, --csv and --html exclude each other");
  SW_CHECK(!(options.over_time && !options.html.empty()), usage,
           "--html has the view over time anyway: leave out --over-time");
  SW_CHECK(!(options.over_time && !options.data.empty()), usage,
           "--over-time reads telemetry, and --data runs the model as it is now: give one of them");
  SW_CHECK(std::count(names.begin(), names.end(), "-") <= 1, usage,
           "- is given twice; standard input holds one checkpoint");
}

// The page appears when all is done; what cannot be written is refused before the work. Throws
// usage when it would take the place of what is read.
std::unique_ptr<AtomicFile> open_page(const Options& options,
                                      const std::vector<std::string>& names) {
  if (options.html.empty() || options.html == "-") return nullptr;
  std::vector<std::string> inputs = names;
  for (const std::string& text : options.data) inputs.push_back(parse_data_domain(text).file);
  for (const std::string& input : inputs) {
    std::error_code error;
    SW_CHECK(!std::filesystem::is_regular_file(input, error) ||
                 !std::filesystem::equivalent(input, options.html, error),
             usage, "--html {}: is read and would be written; give the page another name",
             options.html);
  }
  return std::make_unique<AtomicFile>(options.html);
}

// A report for each checkpoint; of data the first one's lengths hold for both, so that both see the
// same tokens.
std::vector<RouterReport> make_reports(const Options& options, const ToolRun& tool,
                                       const std::vector<CheckpointReader>& readers) {
  RouterEvaluation how;
  for (const std::string& text : options.data) how.data.push_back(parse_data_domain(text));
  how.max_tokens = options.max_tokens;
  how.keep_paths = readers.size() > 1;
  how.as_trained = &readers.front();
  std::vector<RouterReport> reports;
  for (size_t i = 0; i < readers.size(); ++i) {
    const CheckpointReader& reader = readers[i];
    const std::string shown = tool.arguments[i] == "-" ? "standard input" : reader.path().string();
    log::debug("{} | step {} | digest {}", shown, reader.meta().step, reader.digest());
    reports.push_back(options.data.empty() ? router_report(reader, shown, options.samples)
                                           : evaluate_routers(reader, shown, how));
    if (!options.html.empty() && !options.data.empty()) add_history(reader, reports.back());
  }
  return reports;
}

// For people.
std::string shown_text(const Options& options, const std::vector<RouterReport>& reports,
                       const std::vector<LayerDrift>& drift, std::optional<int64_t> layer,
                       bool color) {
  if (reports.size() == 2 && !layer && !options.over_time) {
    return comparison_text(reports[0], reports[1], drift, color);
  }
  std::string text;
  for (const RouterReport& report : reports) {
    if (!text.empty()) text += "\n";
    if (options.over_time) {
      text += layer ? layer_over_time_text(report, *layer, color) : over_time_text(report, color);
    } else {
      text += layer ? layer_text(report, *layer, color) : report_text(report, color);
    }
  }
  return text;
}

// In the form that was asked for; of other layers than `layer`, if it was given, nothing remains in
// `reports` and `drift`.
std::string result(const Options& options, const ToolRun& tool, std::vector<RouterReport>& reports,
                   std::vector<LayerDrift>& drift, std::optional<int64_t> layer) {
  std::string text;
  if (!tool.common.json && !options.csv && options.html.empty()) {
    text = shown_text(options, reports, drift, layer, tool.color(1));
  }
  if (layer) {
    for (RouterReport& report : reports) keep_layer(report, *layer);
    if (!drift.empty()) drift = {drift[static_cast<size_t>(*layer)]};
  }
  if (!options.html.empty()) return report_html(reports, drift);
  if (options.csv) {
    return options.over_time ? history_csv(reports)
           : layer           ? experts_csv(reports)
                             : report_csv(reports, drift);
  }
  if (!tool.common.json) return text;
  ReportJsonParts parts;
  parts.history = options.over_time;
  const nlohmann::ordered_json json = reports.size() == 2
                                          ? comparison_json(reports[0], reports[1], drift, parts)
                                          : report_json(reports[0], parts);
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

int run(const Options& options, ToolRun& tool) {
  check_options(options, tool);
  const std::vector<std::string>& names = tool.arguments;
  std::optional<RouterCondition> condition;
  if (!options.fail_if.empty()) {
    condition.emplace(options.fail_if);
    condition->check_known(names.size() == 2, !options.data.empty());
  }
  const std::unique_ptr<AtomicFile> file =
      tool.common.dry_run ? nullptr : open_page(options, names);
  std::vector<CheckpointReader> readers;
  for (const std::string& name : names) readers.push_back(open_checkpoint(name));
  std::vector<RouterReport> reports = make_reports(options, tool, readers);
  std::vector<LayerDrift> drift;
  if (reports.size() == 2) {
    drift = router_drift(reports[0], reports[1]);
    add_router_cosines(readers[0], readers[1], drift);
  }
  std::optional<int64_t> layer;
  if (!options.layer.empty()) layer = find_layer(reports[0], options.layer);
  if (tool.common.dry_run) return 0;

  const std::string text = result(options, tool, reports, drift, layer);
  if (file) {
    write_all(file->fd(), text.data(), text.size(), options.html);
    file->commit();
    log::info("{}: {} KB", options.html, (text.size() + 999) / 1000);
  } else {
    write_stdout(text);
  }
  return condition && count_failures(*condition, reports, drift) > 0 ? 1 : 0;
}

}  // namespace
}  // namespace sw

int main(int argc, char** argv) {
  return sw::run_tool<sw::Options>(argc, argv, sw::description(), sw::declare, sw::run);
}
