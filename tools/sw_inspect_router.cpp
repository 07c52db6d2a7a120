// sw-inspect-router: what the routers of a checkpoint do.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/router_report.h"
#include "libswitch/train/router_report_condition.h"
#include "libswitch/train/router_report_text.h"
#include "tools/tool.h"

namespace sw {
namespace {

struct Options {
  std::vector<std::string> data;
  int64_t max_tokens = 0;
  std::string layer;
  bool csv = false;
  std::string fail_if;
  int64_t samples = kReportSamples;
};

ToolDescription description() {
  ToolDescription tool;
  tool.name = "sw-inspect-router";
  tool.summary = "load, drops and dead experts of a checkpoint's routers";
  tool.usage = {"CHECKPOINT [CHECKPOINT2] [--data H.swt] [--layer N] [--json|--csv]",
                "CHECKPOINT [CHECKPOINT2] --fail-if EXPR"};
  tool.examples = {"sw-inspect-router runs/a --json | jq '.layers[].dropped_share'",
                   "ssh host cat step.h5 | sw-inspect-router - --fail-if 'drop>5% or dead>0'"};
  tool.description =
      "CHECKPOINT is a .h5 file, a run folder (its newest checkpoint) or - for standard input. The "
      "figures come from the telemetry that training wrote into it; weights are not read, so a "
      "large file takes no longer than a small one. With --data, they come from running the model "
      "over token shards as sw-eval does, with evaluation capacity.\n\n"
      "Load is the share of the tokens that chose an expert. max/mean is the largest load over the "
      "mean, entropy that of the loads (1 is even, 0 all on one expert), dead the experts with "
      "less than 1 % of an even share, dropped the share of the tokens that no expert processed, "
      "conf the mean gate of the chosen expert, aux the load-balancing loss before its "
      "coefficient. A row's blocks are the sorted loads; half a block is an even share.\n\n"
      "With two checkpoints of one model, each layer shows how much of the load has moved to other "
      "experts from the first to the second.\n\n"
      "--fail-if takes comparisons of drop, dead, max, entropy, confidence, aux, z, tokens, "
      "experts and, for two checkpoints, drift with numbers, joined by and, or and parentheses; "
      "5% is 0.05, and for dead a share of the experts. When it holds for any layer of any "
      "checkpoint given, the exit code is 1.";
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
      .value_name("H.swt")
      .completes_files()
      .help("run the model over this shard instead of reading telemetry");
  registry.add("max-tokens", &options.max_tokens)
      .at_least(0)
      .default_text("all")
      .help("tokens of each --data file to run");
  registry.add("layer", &options.layer)
      .value_name("N")
      .scope(Scope::command_line)
      .help("one layer and its experts, by number or name")
      .details("Sparse layers are numbered from 0, as the table shows.");
  registry.add("csv", &options.csv)
      .scope(Scope::command_line)
      .help("print CSV, a line per layer")
      .details("With --layer, a line per expert of that layer.");
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
  fail(ErrorKind::usage, "--layer {}: {} has no sparse layer of this name{}", wanted,
       report.checkpoint, nearest_hint(wanted, names));
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
      const RouterStatistics& layer = report.layers[i].statistics;
      if (!condition.holds(layer, drift.empty() ? nullptr : &drift[i])) continue;
      log::error("{}: {}: {}", report.checkpoint, layer.name, condition.text());
      ++failures;
    }
  }
  return failures;
}

int run(const Options& options, ToolRun& tool) {
  const std::vector<std::string>& names = tool.arguments;
  SW_CHECK(!(tool.common.json && options.csv), usage, "--json and --csv exclude each other");
  SW_CHECK(std::count(names.begin(), names.end(), "-") <= 1, usage,
           "- is given twice; standard input holds one checkpoint");
  std::optional<RouterCondition> condition;
  if (!options.fail_if.empty()) condition.emplace(options.fail_if);
  SW_CHECK(!condition || !condition->uses_drift() || names.size() == 2, usage,
           "--fail-if: drift needs two checkpoints");

  std::vector<CheckpointReader> readers;
  std::vector<RouterReport> reports;
  for (const std::string& name : names) {
    readers.push_back(open_checkpoint(name));
    const CheckpointReader& reader = readers.back();
    const std::string shown = name == "-" ? "standard input" : reader.path().string();
    log::debug("{} | step {} | digest {}", shown, reader.meta().step, reader.digest());
    reports.push_back(options.data.empty()
                          ? router_report(reader, shown, options.samples)
                          : evaluate_routers(reader, shown, options.data, options.max_tokens));
  }
  std::vector<LayerDrift> drift;
  if (reports.size() == 2) {
    drift = router_drift(reports[0], reports[1]);
    add_router_cosines(readers[0], readers[1], drift);
  }
  std::optional<int64_t> layer;
  if (!options.layer.empty()) layer = find_layer(reports[0], options.layer);
  if (tool.common.dry_run) return 0;

  const bool color = tool.color(1);
  std::string text;
  if (!tool.common.json && !options.csv && layer) {
    for (const RouterReport& report : reports) {
      text += (text.empty() ? "" : "\n") + layer_text(report, *layer, color);
    }
  }
  if (layer) {
    for (RouterReport& report : reports) keep_layer(report, *layer);
    if (!drift.empty()) drift = {drift[static_cast<size_t>(*layer)]};
  }
  if (tool.common.json) {
    const nlohmann::ordered_json json = reports.size() == 2
                                            ? comparison_json(reports[0], reports[1], drift)
                                            : report_json(reports[0]);
    text = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  } else if (options.csv) {
    text = layer ? experts_csv(reports) : report_csv(reports);
  } else if (!layer) {
    text = reports.size() == 2 ? comparison_text(reports[0], reports[1], drift, color)
                               : report_text(reports[0], color);
  }
  write_stdout(text);
  return condition && count_failures(*condition, reports, drift) > 0 ? 1 : 0;
}

}  // namespace
}  // namespace sw

int main(int argc, char** argv) {
  return sw::run_tool<sw::Options>(argc, argv, sw::description(), sw::declare, sw::run);
}
