#include "libswitch/train/training_tasks.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "libswitch/base/config.h"
#include "libswitch/base/error.h"
#include "libswitch/train/training_shards.h"

namespace sw {
namespace {

constexpr const char* kScore = "score";
constexpr const char* kPerplexity = "neg_log_perplexity";

// A run that goes on, and every rank, reads a task again.
void refuse_streams(const std::string& spec, const char* option) {
  const std::string path = spec.substr(spec.find(':') == spec.npos ? 0 : spec.find(':') + 1);
  SW_CHECK(path != "-" && !path.starts_with("-="), usage,
           "{} {}: stdin is gone when the run goes on; give a file", option, spec);
  std::error_code error;
  for (const std::string& file : {path, path.substr(0, path.rfind('='))}) {
    SW_CHECK(!std::filesystem::is_fifo(file, error), usage,
             "{} {}: a stream is gone when the run goes on; give a file", option, spec);
  }
}

}  // namespace

TaskObjective::TaskObjective(std::unique_ptr<TextToTextDataset> dataset, uint64_t seed,
                             int64_t rows, std::vector<std::unique_ptr<TaskEvaluation>> evaluations)
    : dataset_(std::move(dataset)),
      seed_(seed),
      rows_(rows),
      evaluations_(std::move(evaluations)) {}

void TaskObjective::fill(int64_t step, MeshPart part, Batch& batch) const {
  dataset_->fill(static_cast<uint64_t>(step * rows_ + part.begin(rows_)), part.count(rows_), batch);
}

DataPosition TaskObjective::position(int64_t step) const {
  DataPosition position;
  position.manifest_sha256 = dataset_->manifest().hex();
  position.seed = seed_;
  position.ordinal = static_cast<uint64_t>(step * rows_);
  position.epoch = static_cast<int64_t>(dataset_->position(position.ordinal).epoch);
  return position;
}

std::vector<Evaluation> TaskObjective::evaluate(const Model& model, const Poll& poll) const {
  std::vector<Evaluation> results;
  for (const auto& evaluation : evaluations_) {
    results.push_back(evaluation->evaluate(model, poll));
  }
  return results;
}

uint64_t TrainingTasks::rows() const {
  uint64_t rows = 0;
  for (int64_t s = 0; s < dataset->sources(); ++s) rows += dataset->rows(s);
  return rows;
}

uint64_t TrainingTasks::tokens() const {
  uint64_t tokens = 0;
  for (int64_t s = 0; s < dataset->sources(); ++s) {
    const TokenizedPairs& pairs = dataset->pairs(s);
    for (int64_t i = 0; i < pairs.size(); ++i) {
      tokens += pairs.input(i).size() + pairs.target(i).size();
    }
  }
  return tokens;
}

int64_t TrainingTasks::data_bytes() const {
  constexpr int64_t kPackingOfAPair = 16;
  int64_t bytes = 0;
  for (int64_t s = 0; s < dataset->sources(); ++s) {
    const TokenizedPairs& pairs = dataset->pairs(s);
    bytes += pairs.memory_bytes() + pairs.size() * kPackingOfAPair;
  }
  for (const auto& evaluation : evaluations) bytes += evaluation->data_bytes();
  return bytes;
}

int64_t TrainingTasks::answering_bytes(const ModelConfig& model, DType compute) const {
  int64_t most = 0;
  for (const auto& evaluation : evaluations) {
    most = std::max(most, evaluation->answering_bytes(model, compute));
  }
  return most;
}

TrainingTasks open_training_tasks(TaskOptions& options, const Tokenizer& tokenizer, uint64_t seed) {
  TrainingTasks out;
  std::vector<TaskSource> sources;
  for (const std::string& text : options.tasks) {
    refuse_streams(text, "--task");
    sources.push_back(parse_task_source(text));
  }
  TextToTextOptions rows;
  rows.input_length = options.input_length;
  rows.target_length = options.target_length;
  rows.pack = options.pack;
  rows.seed = seed;
  out.dataset = std::make_unique<TextToTextDataset>(sources, tokenizer, rows);
  for (const std::string& spec : options.eval_tasks) {
    refuse_streams(spec, "--eval-task");
    auto task = Task::open(spec);
    // At once, and not when the first evaluation is due.
    task->check_judgeable();
    // Lengths that were given hold for evaluation too; else each task has its own.
    out.evaluations.push_back(
        std::make_unique<TaskEvaluation>(std::move(task), tokenizer, spec, options.answers,
                                         options.input_length, options.target_length));
  }
  return out;
}

void describe_tasks(const TrainingTasks& tasks, const Tokenizer& tokenizer, PreparedRun& run) {
  run.input_length = tasks.dataset->input_length();
  run.target_length = tasks.dataset->target_length();
  run.train_examples = tasks.rows();
  run.train_tokens = tasks.tokens();
  run.data_bytes = tasks.data_bytes();
  run.evaluation_bytes = tasks.answering_bytes(run.model, run.machine.compute);
  const auto& sha256 = tokenizer.sha256();
  run.attributes[kVocabularyAttribute] = to_hex(sha256.data(), sha256.size());
}

double score_of(const std::vector<Evaluation>& results, const std::string& metric) {
  double sum = 0;
  int64_t count = 0;
  for (const Evaluation& result : results) {
    double own = 0;
    int64_t found = 0;
    for (const auto& [name, value] : result.metrics) {
      if (metric != kScore && metric != name) continue;
      own += value;
      ++found;
    }
    if (metric == kPerplexity) own = result.neg_log_perplexity, found = 1;
    if (found == 0) continue;
    sum += own / static_cast<double>(found);
    ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : std::nan("");
}

void check_metric(const std::vector<std::unique_ptr<TaskEvaluation>>& evaluations,
                  const std::string& metric) {
  SW_CHECK(!evaluations.empty(), usage, "--best {}: nothing is evaluated; give --eval-task",
           metric);
  std::vector<std::string> names = {kScore, kPerplexity};
  for (const auto& evaluation : evaluations) {
    const std::vector<std::string> silence(evaluation->task().pairs().size());
    for (const auto& [name, value] : evaluation->task().metrics(silence)) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  SW_CHECK(std::find(names.begin(), names.end(), metric) != names.end(), usage,
           "--best: no --eval-task has a metric '{}'{}; there are {}", metric,
           nearest_hint(metric, names), fmt::join(names, ", "));
}

void declare_task_options(OptionRegistry& r, TaskOptions& o, bool required, bool lengths) {
  r.group("task", "Tasks");
  Option& task = r.add("task", &o.tasks);
  if (required) task.required();
  task.value_name("[NAME:]FILE[=WEIGHT]")
      .completes_files()
      .help("pairs of text to train on; more than one are mixed")
      .details(
          "JSON lines with input and target, or two columns separated by a tab; with NAME "
          "(boolq:train.jsonl) that task's own file, cast as the T5 authors cast it. Without "
          "weights a task counts by its pairs.");
  r.add("eval-task", &o.eval_tasks)
      .value_name("[NAME:]FILE")
      .completes_files()
      .help("task to be asked, by generation, every --eval-every steps");
  if (lengths) {
    constexpr int64_t kMaxPositions = int64_t{1} << 20;
    r.add("input-length", &o.input_length)
        .range(0, kMaxPositions)
        .unit("tokens")
        .default_text("the tasks' own")
        .help("encoder positions");
    r.add("target-length", &o.target_length)
        .range(0, kMaxPositions)
        .unit("tokens")
        .default_text("the tasks' own")
        .help("decoder positions");
  }
  r.add("pack", &o.pack).advanced().help("several pairs share a row in training");
  declare_answer_options(r, o.answers);
}

}  // namespace sw
