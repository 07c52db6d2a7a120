// sw-eval: a checkpoint and held-out shards to negative log perplexity, or a task to its metrics.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/log.h"
#include "libswitch/data/tasks/answers_file.h"
#include "libswitch/data/tasks/task.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/evaluation.h"
#include "libswitch/train/options.h"
#include "libswitch/train/task_evaluation.h"
#include "tools/eval_report.h"
#include "tools/tool.h"

namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> data, tasks;
  std::string predictions, predictions_from;
  bool cast = false;
  sw::AnswerOptions answers;
  std::string vocab;
  int64_t max_tokens = 0;
  int64_t input_length = 0, target_length = 0;
  std::string dtype = "auto";
  std::string mesh;
};

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "sw-eval";
  tool.summary = "negative log perplexity of a checkpoint on token shards, or metrics of a task";
  tool.usage = {"CHECKPOINT --data H.swt [--data ...] [--max-tokens N] [--json]",
                "CHECKPOINT --task [NAME:]FILE [--predictions OUT.jsonl] [--json]",
                "--task [NAME:]FILE --predictions-from FILE [--json]", "--task [NAME:]FILE --cast"};
  tool.examples = {"sw-eval - --data heldout.swt --json < step.h5 | jq .results",
                   "sw-eval runs/boolq --task boolq:val.jsonl.zst",
                   "my-model < q.txt | sw-eval --task squad:dev.json --predictions-from -",
                   "mpirun -n 8 sw-eval runs/a --data heldout.swt"};
  std::string names;
  for (const std::string& name : sw::task_names()) names += (names.empty() ? "" : ", ") + name;
  tool.description =
      "CHECKPOINT is a .h5 file, a run folder (its newest checkpoint) or - for stdin. The negative "
      "log perplexity is the mean log-likelihood of the targets in nats, a negative number: nearer "
      "to 0 is better. The corruption of the text is fixed by the data alone, so all models of one "
      "vocabulary are asked for the same targets.\n\n"
      "A task's FILE holds pairs of text: JSON lines with \"input\" and \"target\", or two columns "
      "separated by a tab. With NAME it is that task's raw data: JSON lines with the fields that "
      "TensorFlow Datasets and Hugging Face give it (labels as integers or names), or its official "
      "file (tables of GLUE, JSON lines of SuperGLUE, JSON of SQuAD, WebQuestions and TriviaQA). "
      "Compressed files are read as they are. Inputs, targets and metrics are those of the T5 "
      "authors. The tasks are: " +
      names +
      ". For anli, winogrande and ARC the authors released no form; these have: \"anli hypothesis: "
      ".. premise: ..\", \"winogrande sentence: .. choice1: .. choice2: ..\", \"arc question: .. "
      "choice1: .. choice2: ..\", the target being the label or the text of the right choice.\n\n"
      "--cast prints the pairs, a JSON object a line. Metrics are in percent, under the names of "
      "the t5 library; an answer counts as a class only when it is the class's name to the letter. "
      "ROUGE is the middle of a bootstrap over examples, as there.\n\n"
      "--predictions-from takes a line an answer, in the order of --cast; JSON lines with "
      "\"prediction\" or \"text\"; or, where the questions have ids (SQuAD, TriviaQA), the file "
      "that "
      "the official programs take: one JSON object {\"id\": \"answer\", ..}, where questions "
      "without "
      "an answer score 0. SQuAD's pairs have spaces round punctuation; such answers are held "
      "against that spelling or against that of the text, whichever most of them have.\n\n"
      "Test data, without labels, are cast with the target <unk>; with "
      "--predictions they are answered, without metrics.";
  tool.positional_name = "CHECKPOINT";
  tool.min_positionals = 0;
  tool.max_positionals = 1;
  tool.prints_results = true;
  tool.memory_hint = "give a smaller --input-length";
  tool.see_also = {"sw-pretrain(1)", "sw-generate(1)", "sw-inspect-router(1)"};
  return tool;
}

void declare(sw::OptionRegistry& r, Options& o) {
  r.group("eval", "Evaluation");
  r.add("data", &o.data).value_name("FILE").completes_files().help("token shard to evaluate on");
  r.add("task", &o.tasks)
      .value_name("[NAME:]FILE")
      .completes_files()
      .help("pairs of text, or the raw data of task NAME");
  r.add("predictions", &o.predictions)
      .value_name("OUT.jsonl")
      .completes_files()
      .scope(sw::Scope::command_line)
      .help("write every input, target and answer");
  r.add("predictions-from", &o.predictions_from)
      .value_name("FILE")
      .completes_files()
      .scope(sw::Scope::command_line)
      .help("judge answers made elsewhere, by line or by id");
  r.add("cast", &o.cast)
      .scope(sw::Scope::command_line)
      .help("print the task's pairs of text as JSON lines");
  r.add("max-tokens", &o.max_tokens)
      .at_least(0)
      .default_text("all")
      .help("tokens of each file to evaluate on");
  r.add("input-length", &o.input_length)
      .range(0, 1 << 20)
      .default_text("that of the training, or the task's")
      .help("encoder positions");
  r.add("target-length", &o.target_length)
      .range(0, 1 << 20)
      .default_text("that of the training, or the task's")
      .help("decoder positions");
  sw::declare_answer_options(r, o.answers);
  r.add("batch", &o.answers.rows)
      .value_name("ROWS")
      .range(1, 1 << 16)
      .help("questions that a rank answers together");
  r.add("vocab", &o.vocab)
      .value_name("V.model")
      .completes_files()
      .default_text("the checkpoint's")
      .help("SentencePiece model of inputs and answers")
      .advanced();
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

bool is_stdin(const std::string& task) { return task == "-" || task.ends_with(":-"); }

std::vector<std::unique_ptr<sw::Task>> open_tasks(const Options& options) {
  std::vector<std::unique_ptr<sw::Task>> tasks;
  for (const std::string& spec : options.tasks) tasks.push_back(sw::Task::open(spec));
  return tasks;
}

// A task for a model. A test set has no labels: its answers can be written, but not judged.
std::unique_ptr<sw::Task> open_asked(const std::string& spec, const Options& options) {
  auto task = sw::Task::open(spec);
  if (options.predictions.empty()) task->check_judgeable();
  if (!task->labelled()) {
    sw::log::warn("{}; the answers go to {}, without metrics", task->unlabelled_note(),
                  options.predictions);
  }
  return task;
}

// The pairs of text, without a model.
int cast(const Options& options, const sw::ToolRun& tool) {
  constexpr size_t kChunkBytes = size_t{1} << 20;
  const auto tasks = open_tasks(options);
  if (tool.common.dry_run) return 0;
  for (const auto& task : tasks) {
    if (!task->labelled()) {
      sw::log::warn("{}; they can be answered, but not judged", task->unlabelled_note());
    }
    std::string text;
    for (const sw::TextPair& pair : task->pairs()) {
      const nlohmann::ordered_json line = {{"input", pair.input}, {"target", pair.target}};
      text += line.dump() + "\n";
      if (text.size() < kChunkBytes) continue;
      sw::write_stdout(text);
      text.clear();
    }
    sw::write_stdout(text);
  }
  return 0;
}

void print_tasks(const std::vector<sw::TaskResult>& results, const sw::CheckpointReader* reader,
                 const sw::ToolRun& tool) {
  const std::string argument = tool.arguments.empty() ? "" : tool.arguments.front();
  sw::write_stdout(tool.common.json ? sw::task_json(reader, argument, results)
                                    : sw::task_table(results));
}

// Answers made elsewhere, without a model.
int judge(const Options& options, const sw::ToolRun& tool) {
  SW_CHECK(options.tasks.size() == 1, usage,
           "--predictions-from: answers are to one task, got {} of --task", options.tasks.size());
  SW_CHECK(options.predictions_from != "-" || !is_stdin(options.tasks[0]), usage,
           "--predictions-from - and --task {} cannot share stdin; give one as a file",
           options.tasks[0]);
  const auto task = sw::Task::open(options.tasks[0]);
  task->check_judgeable();
  if (tool.common.dry_run) return 0;
  const auto answers = sw::read_answers(options.predictions_from, *task);
  print_tasks({{task->name(), std::ssize(task->pairs()),
                task->metrics(answers, sw::AnswerSource::elsewhere)}},
              nullptr, tool);
  return 0;
}

void check_options(const Options& options, const sw::ToolRun& tool) {
  const bool checkpoint = !tool.arguments.empty(), from = !options.predictions_from.empty();
  SW_CHECK(!options.data.empty() || !options.tasks.empty(), usage,
           "nothing to evaluate on; give --data FILE, a token shard, or --task [NAME:]FILE");
  SW_CHECK(options.data.empty() || options.tasks.empty(), usage,
           "--data and --task are evaluated in different ways; ask for one at a time");
  SW_CHECK(!(options.cast && from), usage, "--cast and --predictions-from: give one of them");
  const char* alone = options.cast ? "--cast" : from ? "--predictions-from" : nullptr;
  SW_CHECK(alone == nullptr || !options.tasks.empty(), usage, "{} needs --task [NAME:]FILE", alone);
  SW_CHECK(alone == nullptr || !checkpoint, usage, "{} needs no checkpoint, got '{}'", alone,
           checkpoint ? tool.arguments[0] : "");
  SW_CHECK(alone == nullptr || options.predictions.empty(), usage,
           "--predictions goes with a checkpoint, not with {}", alone);
  SW_CHECK(alone != nullptr || checkpoint, usage, "CHECKPOINT is missing");
  SW_CHECK(options.predictions.empty() || !options.tasks.empty(), usage,
           "--predictions needs --task [NAME:]FILE");
  SW_CHECK(options.predictions != "-", usage,
           "--predictions -: stdout has the metrics; give a file");
}

std::vector<sw::Evaluation> evaluate_data(const sw::Model& model, const Options& options,
                                          const std::vector<std::unique_ptr<sw::EvalSet>>& sets) {
  std::vector<sw::Evaluation> results;
  for (size_t i = 0; i < sets.size(); ++i) {
    results.push_back(sw::evaluate_set(model, *sets[i], options.data[i]));
  }
  return results;
}

// What was read is not to be lost to the answers.
void check_predictions(const Options& options, const sw::CheckpointReader& reader,
                       const std::vector<std::unique_ptr<sw::TaskEvaluation>>& tasks) {
  if (options.predictions.empty()) return;
  std::vector<fs::path> sources = {reader.path(), options.vocab};
  for (const auto& evaluation : tasks) sources.emplace_back(evaluation->task().file());
  for (const fs::path& source : sources) {
    std::error_code error;
    const bool same = fs::equivalent(source, options.predictions, error);
    SW_CHECK(error || !same, usage,
             "--predictions {}: is read and would be written; give the answers another name",
             options.predictions);
  }
}

// Asks every task of the model; rank 0 writes the answers to `file`, where there is one.
std::vector<sw::TaskResult> evaluate_tasks(
    const sw::Model& model, const std::vector<std::unique_ptr<sw::TaskEvaluation>>& tasks,
    sw::AtomicFile* file, sw::ProgressMode progress_mode) {
  std::vector<sw::TaskResult> results;
  for (const auto& evaluation : tasks) {
    const sw::Task& task = evaluation->task();
    std::vector<std::string> answers;
    sw::Evaluation result;
    {
      sw::AnswerProgress progress(progress_mode, task.name(), std::ssize(task.pairs()));
      result = evaluation->evaluate(model, {}, {false, &answers, std::ref(progress)});
    }
    results.push_back({task.name(), result.sequences, result.metrics});
    if (file == nullptr) continue;
    std::string text;
    for (size_t i = 0; i < answers.size(); ++i) {
      const sw::TextPair& pair = task.pairs()[i];
      nlohmann::ordered_json line = {
          {"input", pair.input}, {"target", pair.target}, {"prediction", answers[i]}};
      if (tasks.size() > 1) line["task"] = task.name();
      text += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    }
    sw::write_all(file->fd(), text.data(), text.size(), file->temporary_path().string());
  }
  return results;
}

int run(const Options& options, sw::ToolRun& tool) {
  check_options(options, tool);
  if (options.cast || !options.predictions_from.empty()) {
    if (sw::launcher_rank() != 0) return 0;
    return options.cast ? cast(options, tool) : judge(options, tool);
  }
  const std::string& argument = tool.arguments.at(0);
  sw::World& world = sw::join_world(tool);
  SW_CHECK(argument != "-" || world.size() == 1, usage,
           "{} ranks cannot share stdin; give the checkpoint as a file", world.size());
  const sw::CheckpointReader reader = sw::open_checkpoint(argument);
  sw::log::info("{} | step {} | digest {}", reader.path().string(), reader.meta().step,
                reader.digest());
  std::optional<sw::DType> dtype;
  if (options.dtype != "auto") dtype = sw::compute_dtype(options.dtype);

  // All data are looked at before the first is evaluated.
  std::vector<std::unique_ptr<sw::EvalSet>> sets;
  for (const std::string& name : options.data) {
    SW_CHECK(name != "-", usage, "--data -: stdin is not read here; give a file");
    sets.push_back(
        sw::open_eval_set(reader, name, dataset_options(reader, options), options.max_tokens));
  }
  std::optional<sw::Tokenizer> tokenizer;
  if (!options.tasks.empty()) tokenizer = sw::load_tokenizer(reader, options.vocab);
  std::vector<std::unique_ptr<sw::TaskEvaluation>> tasks;
  for (const std::string& spec : options.tasks) {
    SW_CHECK(!is_stdin(spec), usage, "--task {}: stdin is not read here; give a file", spec);
    tasks.push_back(std::make_unique<sw::TaskEvaluation>(
        open_asked(spec, options), *tokenizer, spec, options.answers, options.input_length,
        options.target_length));
  }
  check_predictions(options, reader, tasks);
  const sw::Mesh mesh(world,
                      sw::resolve_mesh_shape(sw::parse_mesh_shape(options.mesh), world.size(),
                                             sw::model_config(reader).experts));
  if (tool.common.dry_run) return 0;
  const bool speaks = world.rank() == 0;
  std::optional<sw::AtomicFile> file;
  if (speaks && !options.predictions.empty()) file.emplace(options.predictions);
  const auto model = sw::load_model(reader, dtype, mesh);
  if (tasks.empty()) {
    const auto results = evaluate_data(*model, options, sets);
    if (speaks) {
      sw::write_stdout(tool.common.json ? sw::perplexity_json(reader, argument, results)
                                        : sw::perplexity_table(results));
    }
    return 0;
  }
  const auto results = evaluate_tasks(*model, tasks, file ? &*file : nullptr,
                                      speaks ? tool.progress() : sw::ProgressMode::none);
  if (file) file->commit();
  if (speaks) print_tasks(results, &reader, tool);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return sw::run_tool<Options>(argc, argv, describe(), declare, run);
}
