// sw-generate: a checkpoint and prompts to answers.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/base/memory.h"
#include "libswitch/base/timer.h"
#include "libswitch/data/tokenizer.h"
#include "libswitch/generate/checkpoint_experts.h"
#include "libswitch/generate/generator.h"
#include "libswitch/generate/prompt_lines.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/evaluation.h"
#include "libswitch/train/options.h"
#include "libswitch/train/task_evaluation.h"
#include "tools/tool.h"

namespace {

struct Options {
  sw::GenerateOptions generate;
  std::optional<double> temperature;
  std::string jsonl;
  std::string vocab;
  int64_t input_length = 0;
  std::string dtype = "auto";
  std::optional<int64_t> expert_memory;
  std::string mesh;
};

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "sw-generate";
  tool.summary = "answers of a checkpoint to prompts, a line each";
  tool.usage = {"CHECKPOINT [--beam N | --temperature X] [OPTION...] < prompts"};
  tool.examples = {"cat questions.txt | sw-generate runs/a | paste questions.txt -",
                   "sw-generate runs/a --beam 4 --jsonl q --json <in.jsonl | jq -r .text"};
  tool.description =
      "Reads one prompt a line from stdin and prints one answer a line, in order, as they finish: "
      "at once when no further prompt is waiting, else --batch prompts at a time. An empty line is "
      "a prompt too. <extra_id_0> and so on stand for sentinels, in prompts and in answers. Line "
      "ends within an answer are printed as spaces; --json has them as they are.\n\n"
      "CHECKPOINT is a .h5 file or a run folder (its newest checkpoint).\n\n"
      "An answer depends on its prompt, the prompt's number and the options, not on the prompts "
      "beside it, --batch, --threads or the number of ranks. With --use-capacity it does: then "
      "experts take no more of a batch's tokens than the checkpoint's rule says. The number of a "
      "prompt enters draws only (--temperature), so that equal prompts get answers of their "
      "own.\n\n"
      "The score of an answer is the logarithm of its probability, divided by its length norm: "
      "((5 + length) / 6)^0.6 for t5, length^1 for hf, lengths in tokens with the end. Beam search "
      "returns the answer of the highest score that it finds; with hf it ends by the rules of "
      "Hugging Face's generate (early_stopping False), with t5 by those of the T5 authors' code, "
      "which goes on until no better answer is possible.\n\n"
      "Experts are read from the file when a token is first sent to them and the last used ones "
      "are kept, up to --expert-memory, so that a model larger than memory runs: then most of the "
      "time goes into reading, and the last line of the log says how much was read. Under mpirun "
      "every rank holds its share of the experts in memory instead, and prompts are shared out.\n\n"
      "--json prints one object a prompt: prompt, text, tokens (ids without the start, with the "
      "end) and score.";
  tool.positional_name = "CHECKPOINT";
  tool.min_positionals = 1;
  tool.max_positionals = 1;
  tool.prints_results = true;
  tool.memory_hint = "give a smaller --expert-memory, --batch or --beam";
  tool.see_also = {"sw-pretrain(1)", "sw-eval(1)", "sw-tokenize(1)"};
  return tool;
}

void declare(sw::OptionRegistry& r, Options& o) {
  sw::GenerateOptions& g = o.generate;
  r.group("generate", "Answers");
  r.add("beam", &g.beam).range(1, 1024).help("beam search with this many beams; 1: greedy");
  r.add("max-length", &g.max_length)
      .range(1, 1 << 20)
      .help("most tokens of an answer, its end included");
  r.add("batch", &g.batch)
      .value_name("ROWS")
      .range(1, 1 << 16)
      .help("prompts that are answered together");
  r.add("temperature", &o.temperature)
      .at_least(0)
      .default_text("0, or 1 with --top-k or --top-p")
      .help("draw tokens; 0: the most probable one");
  r.add("top-k", &g.top_k)
      .at_least(0)
      .default_text("all")
      .help("draw from the k most probable tokens");
  r.add("top-p", &g.top_p)
      .above(0)
      .at_most(1)
      .help("draw from the fewest tokens of this probability");
  r.add("seed", &g.seed).help("of the draws");
  r.add_choice("length-norm", &g.length_norm,
               {{"t5", sw::LengthNorm::t5}, {"hf", sw::LengthNorm::hf}})
      .help("how answers of different lengths compare");
  r.add("length-penalty", &g.length_penalty)
      .default_text("0.6 for t5, 1 for hf")
      .help("exponent of the length norm");
  r.add("jsonl", &o.jsonl)
      .value_name("FIELD")
      .help("prompts are this field of JSON objects, one a line");
  r.add("use-capacity", &g.use_capacity)
      .help("drop tokens over the experts' capacity, as in training")
      .advanced();
  r.add("expert-memory", &o.expert_memory)
      .value_name("BYTES")
      .at_least(0)
      .default_text("half of what is left")
      .help("keep at most this much of the experts in memory")
      .details("But at least one expert. One rank only.");
  r.add("input-length", &o.input_length)
      .range(0, 1 << 20)
      .default_text("that of the training")
      .help("tokens of a prompt; a longer one is cut, with a warning");
  r.add("vocab", &o.vocab)
      .value_name("V.model")
      .completes_files()
      .default_text("the checkpoint's")
      .help("SentencePiece model of prompts and answers");
  r.add_choice("dtype", &o.dtype, {"auto", "fp32", "bf16"})
      .help("of the weights; auto: as in training");
  r.add("mesh", &o.mesh)
      .value_name("data=N,expert=N,model=N")
      .default_text("all ranks on data, experts spread over them")
      .help("how the ranks of mpirun share the work")
      .advanced();
}

// Bytes of the weights.
struct WeightBytes {
  int64_t experts = 0, others = 0;
};

WeightBytes weight_bytes(const sw::ModelConfig& config, sw::DType dtype) {
  WeightBytes bytes;
  for (const sw::ParameterSpec& spec : sw::parameter_specs(config)) {
    const int64_t width = sw::element_bytes(spec.master_only ? sw::DType::f32 : dtype);
    (spec.expert() ? bytes.experts : bytes.others) += spec.elements() * width;
  }
  return bytes;
}

// `kept`: bytes of experts that one rank keeps.
void report_memory(const WeightBytes& bytes, std::optional<int64_t> kept) {
  const auto [experts, others] = bytes;
  std::string text = fmt::format("weights: {:.2f} GB", 1e-9 * static_cast<double>(others));
  if (experts > 0) {
    text += fmt::format(", experts {:.2f} GB", 1e-9 * static_cast<double>(experts));
    if (kept && *kept < experts) {
      text += fmt::format(" (read as needed, {:.2f} GB kept)", 1e-9 * static_cast<double>(*kept));
    }
  }
  sw::log::info("{}", text);
}

// Prompts in, answers out, by one process or by all ranks of a job together.
class Session {
 public:
  Session(const Options& options, sw::ToolRun& tool, sw::World& world,
          const sw::Tokenizer& tokenizer, int64_t input_length, sw::Generator& generator)
      : options_(options),
        json_(tool.common.json),
        group_(world.group()),
        tokenizer_(tokenizer),
        input_length_(input_length),
        generator_(generator) {}

  void run() {
    // Under the capacity rule answers depend on the batch, which then must not depend on when
    // prompts arrive.
    const bool full = options_.generate.use_capacity;
    const int64_t most = options_.generate.batch * group_.size();
    while (true) {
      std::vector<std::string> lines;
      const auto failure = sw::failure_of([&] {
        if (group_.rank() == 0) lines = lines_.next(most, full);
      });
      sw::agree(group_, failure);
      share(lines);
      if (lines.empty()) break;
      answer(lines);
    }
    if (cut_ > 0) {
      sw::log::warn("{} of {} prompts were longer than {} tokens and were cut; see --input-length",
                    cut_, prompts_, input_length_);
    }
  }

  void report(const sw::CheckpointExperts* experts) const {
    const double seconds = timer_.seconds();
    std::string text =
        fmt::format("{} answers, {} tokens in {:.1f} s: {:.1f} tokens/s", prompts_, tokens_,
                    seconds, static_cast<double>(tokens_) / std::max(seconds, 1e-9));
    if (experts != nullptr && experts->use().experts > 0) {
      const auto& use = experts->use();
      text += fmt::format(
          " | experts: {} of {} used ({:.0f} %), {:.1f} % of uses read from the file ({:.2f} GB), "
          "{:.2f} GB in memory",
          use.used, use.experts,
          100.0 * static_cast<double>(use.used) / static_cast<double>(use.experts),
          100.0 * static_cast<double>(use.read) /
              static_cast<double>(std::max<int64_t>(use.asked, 1)),
          1e-9 * static_cast<double>(use.bytes_read), 1e-9 * static_cast<double>(use.bytes_kept));
    }
    sw::log::info("{}", text);
  }

 private:
  // Rank 0's lines to everybody.
  void share(std::vector<std::string>& lines) {
    if (group_.size() == 1) return;
    // To the byte: all ranks have to refuse the same lines.
    std::string text;
    for (const std::string& line : lines) text += line + '\n';
    text = group_.broadcast_bytes(text, 0);
    if (group_.rank() == 0) return;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = text.find('\n', begin);
      lines.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }

  void answer(const std::vector<std::string>& lines) {
    std::vector<std::string> prompts;
    std::vector<std::vector<int32_t>> ids;
    // What comes before a bad line is answered.
    const auto failure = sw::failure_of([&] {
      for (const std::string& line : lines) {
        const auto number = static_cast<int64_t>(prompts_ + prompts.size()) + 1;
        std::string prompt = sw::prompt_of(line, options_.jsonl, number);
        ids.push_back(encode(prompt, number));
        prompts.push_back(std::move(prompt));
      }
    });
    const std::vector<sw::Answer> answers = generator_.generate(ids, prompts_);
    prompts_ += prompts.size();
    std::string text;
    for (size_t i = 0; i < answers.size(); ++i) {
      tokens_ += static_cast<int64_t>(answers[i].tokens.size());
      text += line_of(prompts[i], answers[i]);
    }
    if (group_.rank() == 0) sw::write_stdout(text);
    sw::agree(group_, failure);
  }

  std::vector<int32_t> encode(const std::string& prompt, int64_t number) {
    std::vector<int32_t> ids = tokenizer_.encode(prompt);
    if (static_cast<int64_t>(ids.size()) >= input_length_) {
      if (cut_++ == 0) {
        sw::log::warn("stdin:{}: a prompt of {} tokens is cut to its first {}", number,
                      ids.size() + 1, input_length_);
      }
      ids.resize(static_cast<size_t>(input_length_ - 1));
    }
    ids.push_back(sw::Tokenizer::kEos);
    return ids;
  }

  std::string line_of(const std::string& prompt, const sw::Answer& answer) const {
    std::string text = tokenizer_.decode(answer.tokens);
    if (json_) {
      const nlohmann::ordered_json object = {
          {"prompt", prompt}, {"text", text}, {"tokens", answer.tokens}, {"score", answer.score}};
      return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    }
    for (char& c : text) {
      if (c == '\n' || c == '\r') c = ' ';
    }
    return text + "\n";
  }

  const Options& options_;
  bool json_;
  sw::Group& group_;
  const sw::Tokenizer& tokenizer_;
  int64_t input_length_;
  sw::Generator& generator_;
  sw::PromptLines lines_{STDIN_FILENO};
  uint64_t prompts_ = 0;
  int64_t tokens_ = 0, cut_ = 0;
  sw::Timer timer_;
};

int run(const Options& given, sw::ToolRun& tool) {
  Options options = given;
  const std::string& argument = tool.arguments.at(0);
  SW_CHECK(argument != "-", usage,
           "CHECKPOINT -: stdin holds the prompts; give the checkpoint as a file");
  sw::GenerateOptions& generate = options.generate;
  const bool cut = generate.top_k > 0 || generate.top_p < 1;
  generate.temperature = options.temperature.value_or(cut ? 1.0 : 0.0);
  SW_CHECK(
      generate.temperature > 0 || !cut, usage,
      "--temperature 0 takes the most probable token; leave out --top-k and --top-p, or give a "
      "temperature above 0");
  SW_CHECK(generate.beam == 1 || generate.temperature == 0, usage,
           "--beam {} does not go with --temperature, --top-k and --top-p: beam search draws "
           "nothing",
           generate.beam);
  generate.validate();

  sw::World& world = sw::join_world(tool);
  const sw::CheckpointReader reader = sw::open_checkpoint(argument);
  const sw::ModelConfig config = sw::model_config(reader);
  const sw::Tokenizer tokenizer = sw::load_tokenizer(reader, options.vocab);
  int64_t input_length = options.input_length;
  if (input_length == 0) input_length = sw::trained_dataset_options(reader).input_length;
  const sw::DType dtype =
      options.dtype == "auto" ? sw::trained_dtype(reader) : sw::compute_dtype(options.dtype);
  const sw::Mesh mesh(world, sw::resolve_mesh_shape(sw::parse_mesh_shape(options.mesh),
                                                    world.size(), config.experts));
  SW_CHECK(world.size() == 1 || !options.expert_memory, usage,
           "--expert-memory is for one rank; {} ranks hold their experts in memory", world.size());
  sw::log::info("{} | step {} | digest {}", reader.path().string(), reader.meta().step,
                reader.digest());
  const WeightBytes bytes = weight_bytes(config, dtype);
  // Half of what the other weights leave: they take half as much again while they are read.
  const int64_t free = std::max<int64_t>(0, sw::available_memory() - bytes.others / 2 * 3);
  const int64_t expert_memory = options.expert_memory.value_or(free / 2);
  report_memory(bytes, world.size() == 1 ? std::optional(expert_memory) : std::nullopt);
  if (tool.common.dry_run) return 0;

  std::unique_ptr<sw::Model> model;
  std::unique_ptr<sw::Generator> generator;
  const sw::CheckpointExperts* on_demand = nullptr;
  if (world.size() > 1) {
    model = sw::load_model(reader, dtype, mesh);
    generator = std::make_unique<sw::Generator>(*model, generate);
  } else {
    sw::DecodingWeights weights = sw::read_decoding_weights(reader, config, dtype);
    auto experts = std::make_unique<sw::CheckpointExperts>(reader, config, dtype, expert_memory);
    on_demand = experts.get();
    generator = std::make_unique<sw::Generator>(config, dtype, std::move(weights),
                                                std::move(experts), generate);
  }
  Session session(options, tool, world, tokenizer, input_length, *generator);
  session.run();
  session.report(on_demand);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return sw::run_tool<Options>(argc, argv, describe(), declare, run);
}
