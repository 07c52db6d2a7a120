// bench_generate: tokens/s of generation by a model of random weights, as JSON; or such a model as
// a checkpoint, for sw-generate. tests/peers/run_generate sets it beside others.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/rng.h"
#include "libswitch/base/timer.h"
#include "libswitch/generate/generator.h"
#include "libswitch/io/checkpoint_writer.h"
#include "libswitch/nn/model_options.h"
#include "libswitch/train/options.h"
#include "tools/tool.h"

namespace {

struct Options {
  sw::ModelOptions model;
  sw::GenerateOptions generate;
  int64_t prompt_length = 64;
  int64_t rounds = 3;
  std::string dtype = "fp32";
  std::filesystem::path write;
};

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "bench_generate";
  tool.summary = "tokens/s of generation by a model of random weights";
  tool.usage = {"--preset P [--batch N] [--beam N]", "--preset P --write OUT.h5"};
  tool.examples = {"bench_generate --preset mini --batch 16 | jq .tokens_per_second"};
  tool.prints_results = true;
  return tool;
}

void declare(sw::OptionRegistry& r, Options& o) {
  sw::declare_model_options(r, o.model);
  r.group("bench", "Measurement");
  r.add("batch", &o.generate.batch).at_least(1).help("prompts decoded together");
  r.add("beam", &o.generate.beam).at_least(1).help("beams of a prompt");
  r.add("max-length", &o.generate.max_length).at_least(1).help("tokens of an answer");
  r.add("prompt-length", &o.prompt_length).at_least(1).help("tokens of a prompt");
  r.add("rounds", &o.rounds).at_least(1).help("the best of so many is printed");
  r.add_choice("dtype", &o.dtype, {"fp32", "bf16"}).help("of the weights");
  r.add("write", &o.write).value_name("OUT.h5").help("write the model there instead");
}

// Rows [begin, end) of a weight, drawn evenly.
std::vector<float> draw_rows(const sw::ParameterSpec& spec, int64_t begin, int64_t end) {
  const int64_t width = spec.elements() / spec.shape[0];
  std::vector<float> values(static_cast<size_t>((end - begin) * width));
  const bool constant = spec.initializer.kind == sw::Initializer::Kind::constant;
  const auto scale = static_cast<float>(spec.initializer.scale);
  const sw::RngKey key = sw::rng_key(1, sw::RngPurpose::init, spec.name);
  const auto n = static_cast<int64_t>(values.size());
  const auto first = static_cast<uint64_t>(begin * width / 4);
  sw::parallel_for((n + 3) / 4, 1 << 16, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const auto words = sw::philox(key, first + static_cast<uint64_t>(i));
      for (int64_t j = 4 * i; j < std::min(n, 4 * i + 4); ++j) {
        const float uniform = 2 * sw::to_uniform(words[static_cast<size_t>(j & 3)]) - 1;
        values[static_cast<size_t>(j)] = constant ? scale : 1.73f * scale * uniform;
      }
    }
  });
  return values;
}

// Tile by tile, so that the model may be larger than memory.
void write_model(const sw::ModelConfig& config, const std::string& toml, const Options& options) {
  std::vector<sw::TensorEntry> entries;
  std::map<std::string, sw::ParameterSpec> specs;
  for (const sw::ParameterSpec& spec : sw::parameter_specs(config)) {
    entries.push_back({"/model/" + spec.name, sw::DType::f32, spec.shape, spec.axes});
    specs.emplace("/model/" + spec.name, spec);
  }
  sw::CheckpointMeta meta;
  meta.config_toml = toml;
  meta.preset = options.model.preset;
  meta.created_utc = "1970-01-01T00:00:00Z";
  meta.tool_version = "0.1.0";
  meta.params_total = sw::count_parameters(config).total;
  meta.params_active = sw::count_parameters(config).active;
  meta.attributes["compute_dtype"] = options.dtype;
  sw::CheckpointWriter writer(options.write, entries, meta, {});
  const std::vector<sw::TensorEntry> ordered = writer.entries();
  for (const sw::Tile& tile : sw::make_tiles(ordered)) {
    const sw::TensorEntry& entry = ordered[static_cast<size_t>(tile.entry)];
    const std::vector<float> values = draw_rows(specs.at(entry.path), tile.begin, tile.end);
    sw::Rectangle box = sw::whole_of(entry.shape);
    box.start[0] = tile.begin, box.count[0] = tile.end - tile.begin;
    writer.write_rectangle(entry.path, box, values.data());
  }
  const sw::CommittedCheckpoint done = writer.finish();
  sw::write_stdout(done.path.string() + "\n");
}

int run(const Options& given, sw::ToolRun& tool) {
  Options options = given;
  if (options.model.config.vocab_size == 0) options.model.config.vocab_size = 32128;
  const sw::ModelConfig config = options.model.resolve();
  config.validate();
  if (!options.write.empty()) {
    std::string toml = tool.resolved_config();
    const auto at = toml.find("vocab_size = 0");
    if (at != std::string::npos) {
      toml.replace(at, std::strlen("vocab_size = 0"),
                   fmt::format("vocab_size = {}", config.vocab_size));
    }
    write_model(config, toml, options);
    return 0;
  }
  sw::Model model(config, sw::compute_dtype(options.dtype));
  for (auto& parameter : model.parameters()) {
    const std::vector<float> values = draw_rows(parameter->spec(), 0, parameter->spec().shape[0]);
    std::copy(values.begin(), values.end(), parameter->master().data<float>());
    parameter->refresh(sw::Stream{});
  }
  sw::Generator generator(model, options.generate);
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < options.generate.batch; ++i) {
    const sw::RngKey key = sw::rng_key(2, sw::RngPurpose::test, static_cast<uint64_t>(i));
    std::vector<int32_t> prompt;
    for (int64_t j = 1; j < options.prompt_length; ++j) {
      prompt.push_back(static_cast<int32_t>(2 + sw::random_u32(key, static_cast<uint64_t>(j)) %
                                                    static_cast<uint64_t>(config.vocab_size - 2)));
    }
    prompt.push_back(1);
    prompts.push_back(std::move(prompt));
  }
  double best = 0, best_of_cpu = 0;
  int64_t tokens = 0;
  for (int64_t round = 0; round < options.rounds; ++round) {
    const sw::Timer timer;
    const std::clock_t cpu = std::clock();
    const auto answers = generator.generate(prompts);
    tokens = 0;
    for (const sw::Answer& answer : answers) tokens += static_cast<int64_t>(answer.tokens.size());
    best = std::max(best, static_cast<double>(tokens) / timer.seconds());
    best_of_cpu = std::max(best_of_cpu, static_cast<double>(tokens) * CLOCKS_PER_SEC /
                                            static_cast<double>(std::clock() - cpu));
  }
  const nlohmann::ordered_json out = {{"preset", options.model.preset},
                                      {"experts", config.experts},
                                      {"dtype", options.dtype},
                                      {"batch", options.generate.batch},
                                      {"beam", options.generate.beam},
                                      {"prompt_length", options.prompt_length},
                                      {"tokens", tokens},
                                      {"steps", generator.work().steps},
                                      {"tokens_per_second", best},
                                      {"tokens_per_cpu_second", best_of_cpu}};
  sw::write_stdout(out.dump() + "\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return sw::run_tool<Options>(argc, argv, describe(), declare, run);
}
