// Tasks as a tool that trains opens them: --task, --eval-task.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libswitch/data/text_to_text.h"
#include "libswitch/train/objective.h"
#include "libswitch/train/task_evaluation.h"
#include "libswitch/train/training_run.h"

namespace sw {

/// Tasks, and how they are asked. Group "task".
struct TaskOptions {
  std::vector<std::string> tasks;               // [NAME:]FILE[=WEIGHT]
  std::vector<std::string> eval_tasks;          // [NAME:]FILE
  int64_t input_length = 0, target_length = 0;  // 0: the longest of the tasks' own
  bool pack = true;
  AnswerOptions answers;
};
/// `lengths`: with --input-length and --target-length.
void declare_task_options(OptionRegistry& registry, TaskOptions& options, bool required,
                          bool lengths);

/// Training rows from pairs of text, and tasks to be asked.
class TaskObjective final : public Objective {
 public:
  TaskObjective(std::unique_ptr<TextToTextDataset> dataset, uint64_t seed, int64_t rows,
                std::vector<std::unique_ptr<TaskEvaluation>> evaluations);

  int64_t rows() const override { return rows_; }
  void fill(int64_t step, MeshPart part, Batch& batch) const override;
  DataPosition position(int64_t step) const override;
  std::vector<Evaluation> evaluate(const Model& model, const Poll& poll) const override;

 private:
  std::unique_ptr<TextToTextDataset> dataset_;
  uint64_t seed_;
  int64_t rows_;
  std::vector<std::unique_ptr<TaskEvaluation>> evaluations_;
};

struct TrainingTasks {
  std::unique_ptr<TextToTextDataset> dataset;
  std::vector<std::unique_ptr<TaskEvaluation>> evaluations;
  uint64_t rows() const;    // of one epoch of every task
  uint64_t tokens() const;  // inputs and targets of every pair
  /// Of all that was read, and the most that an evaluation adds to the model's memory.
  int64_t data_bytes() const;
  int64_t answering_bytes(const ModelConfig& model, DType compute) const;
};
/// Opens them all and settles the lengths. The tokenizer must outlive what is returned. Throws as
/// TextToTextDataset and Task::open; corrupt for an --eval-task without labels; usage for stdin,
/// which no run could go on with.
TrainingTasks open_training_tasks(TaskOptions& options, const Tokenizer& tokenizer, uint64_t seed);

/// What they say of a run whose model and machine are settled: lengths, counts, memory, vocabulary.
void describe_tasks(const TrainingTasks& tasks, const Tokenizer& tokenizer, PreparedRun& run);

/// "score": over tasks the mean of the mean of each task's metrics (Fedus et al. 2022, section
/// 4.3); a metric's name: its mean over the tasks that have it; "neg_log_perplexity".
double score_of(const std::vector<Evaluation>& results, const std::string& metric);
/// Throws usage, naming what there is, when no task has that metric.
void check_metric(const std::vector<std::unique_ptr<TaskEvaluation>>& evaluations,
                  const std::string& metric);

}  // namespace sw
