// sw-eval: a checkpoint and held-out shards to negative log perplexity.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/evaluation.h"
#include "libswitch/train/options.h"
#include "tools/tool.h"

namespace {

struct Options {
  std::vector<std::string> data;
  int64_t max_tokens = 0;
  int64_t input_length = 0, target_length = 0;
  std::string dtype = "auto";
  std::string mesh;
};

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "sw-eval";
  tool.summary = "negative log perplexity of a checkpoint on token shards";
  tool.usage = {"CHECKPOINT --data H.swt [--data ...] [--max-tokens N] [--json]"};
  tool.examples = {"sw-eval runs/a --data heldout.swt",
                   "sw-eval - --data heldout.swt --json < step.h5 | jq .results",
                   "mpirun -n 8 sw-eval runs/a --data heldout.swt"};
  tool.description =
      "CHECKPOINT is a .h5 file, a run folder (its newest checkpoint) or - for stdin. The figure "
      "is "
      "the mean log-likelihood of the targets in nats, a negative number: nearer to 0 is better. "
      "The "
      "corruption of the text is fixed by the data alone, so all models of one vocabulary are "
      "asked "
      "for the same targets.";
  tool.positional_name = "CHECKPOINT";
  tool.min_positionals = 1;
  tool.max_positionals = 1;
  tool.prints_results = true;
  tool.memory_hint = "give a smaller --input-length";
  tool.see_also = {"sw-pretrain(1)", "sw-inspect-router(1)"};
  return tool;
}

void declare(sw::OptionRegistry& r, Options& o) {
  r.group("eval", "Evaluation");
  r.add("data", &o.data)
      .value_name("FILE")
      .completes_files()
      .required()
      .help("token shard to evaluate on");
  r.add("max-tokens", &o.max_tokens)
      .at_least(0)
      .default_text("all")
      .help("tokens of each file to evaluate on");
  r.add("input-length", &o.input_length)
      .range(0, 1 << 20)
      .default_text("that of the training")
      .help("encoder positions");
  r.add("target-length", &o.target_length)
      .range(0, 1 << 20)
      .default_text("that of the training")
      .help("decoder positions");
  r.add_choice("dtype", &o.dtype, {"auto", "fp32", "bf16"})
      .help("of activations; auto: as in training");
  r.add("mesh", &o.mesh)
      .value_name("data=N,expert=N,model=N")
      .default_text("all ranks on data, experts spread over them")
      .help("how the ranks of mpirun share the work");
}

// As the checkpoint was trained, but for the lengths that were given.
sw::DatasetOptions dataset_options(const sw::CheckpointReader& reader, const Options& options) {
  sw::DatasetOptions out = sw::trained_dataset_options(reader);
  if (options.input_length > 0) {
    out.input_length = options.input_length;
    out.target_length = 0;
  }
  if (options.target_length > 0) out.target_length = options.target_length;
  return out;
}

std::string table(const std::vector<sw::Evaluation>& results) {
  size_t width = 4;
  for (const auto& result : results) width = std::max(width, result.data.size());
  std::string text = fmt::format("{:<{}}  {:>18}  {:>10}  {:>9}  {:>7}\n", "data", width,
                                 "neg_log_perplexity", "tokens", "sequences", "dropped");
  for (const auto& r : results) {
    text += fmt::format("{:<{}}  {:>18.6f}  {:>10}  {:>9}  {:>6.2f}%\n", r.data, width,
                        r.neg_log_perplexity, r.tokens, r.sequences, 100 * r.dropped_share);
  }
  return text;
}

std::string json(const sw::CheckpointReader& reader, const std::string& argument,
                 const std::vector<sw::Evaluation>& results) {
  nlohmann::ordered_json out = {{"checkpoint", argument == "-" ? argument : reader.path().string()},
                                {"step", reader.meta().step},
                                {"results", nlohmann::ordered_json::array()}};
  for (const auto& r : results) {
    out["results"].push_back({{"data", r.data},
                              {"neg_log_perplexity", r.neg_log_perplexity},
                              {"tokens", r.tokens},
                              {"sequences", r.sequences},
                              {"dropped_share", r.dropped_share}});
  }
  return out.dump() + "\n";
}

int run(const Options& options, sw::ToolRun& tool) {
  const std::string& argument = tool.arguments.at(0);
  sw::World& world = sw::join_world(tool);
  SW_CHECK(argument != "-" || world.size() == 1, usage,
           "{} ranks cannot share stdin; give the checkpoint as a file", world.size());
  const sw::CheckpointReader reader = sw::open_checkpoint(argument);
  sw::log::info("{} | step {} | digest {}", reader.path().string(), reader.meta().step,
                reader.digest());
  const sw::DatasetOptions dataset = dataset_options(reader, options);
  std::optional<sw::DType> dtype;
  if (options.dtype != "auto") dtype = sw::compute_dtype(options.dtype);

  // All data are looked at before the first is evaluated.
  std::vector<std::unique_ptr<sw::EvalSet>> sets;
  for (const std::string& name : options.data) {
    SW_CHECK(name != "-", usage, "--data -: stdin is not read here; give a file");
    sets.push_back(sw::open_eval_set(reader, name, dataset, options.max_tokens));
  }
  const sw::Mesh mesh(world,
                      sw::resolve_mesh_shape(sw::parse_mesh_shape(options.mesh), world.size(),
                                             sw::model_config(reader).experts));
  if (tool.common.dry_run) return 0;
  const auto model = sw::load_model(reader, dtype, mesh);
  std::vector<sw::Evaluation> results;
  for (size_t i = 0; i < sets.size(); ++i) {
    results.push_back(sw::evaluate_set(*model, *sets[i], options.data[i]));
  }
  if (world.rank() != 0) return 0;
  const std::string text = tool.common.json ? json(reader, argument, results) : table(results);
  sw::write_stdout(text);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return sw::run_tool<Options>(argc, argv, describe(), declare, run);
}
