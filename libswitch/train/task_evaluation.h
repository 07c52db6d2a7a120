// A model on a task: answers by generation, judged by the task's metrics.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libswitch/base/options.h"
#include "libswitch/data/tasks/task.h"
#include "libswitch/data/text_to_text.h"
#include "libswitch/data/tokenizer.h"
#include "libswitch/generate/generator.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/objective.h"

namespace sw {

/// How questions are answered. What is not given is as with the T5 authors (Raffel et al. 2020,
/// section 3.1): greedily, but by 4 beams where the task's targets go beyond 128 tokens, and no
/// longer than the target length: the one that was given, else the task's.
struct AnswerOptions {
  std::optional<int64_t> beam, max_length;
  LengthNorm length_norm = LengthNorm::t5;
  std::optional<double> length_penalty;
  int64_t rows = 16;  // prompts that a rank answers together

  /// For this task; a target length of 0 is the task's own.
  GenerateOptions for_task(const Task& task, int64_t target_length = 0) const;
};

/// Registers --beam, --max-length, --length-norm and --length-penalty.
void declare_answer_options(OptionRegistry& registry, AnswerOptions& options);

/// The checkpoint's vocabulary, or `given` where that is not empty. Throws usage when there is
/// neither, corrupt when it is not the one that the checkpoint names, or has more ids than the
/// embedding table rows.
Tokenizer load_tokenizer(const CheckpointReader& reader, const std::string& given = "");

/// One task, tokenised and ready to be asked of models of one vocabulary.
class TaskEvaluation {
 public:
  /// Lengths of 0 are the task's own. `name` goes into results. The tokenizer must outlive it.
  TaskEvaluation(std::unique_ptr<Task> task, const Tokenizer& tokenizer, const std::string& name,
                 const AnswerOptions& options, int64_t input_length = 0, int64_t target_length = 0);

  const Task& task() const { return *task_; }

  /// Of the examples: what encoding them took, and as much for the task, which keeps its pairs.
  int64_t data_bytes() const { return 2 * set_.pairs().memory_bytes(); }
  /// What answering adds to a model's memory.
  int64_t answering_bytes(const ModelConfig& model, DType compute) const;

  /// What else evaluate() gives.
  struct Extras {
    /// That of the pairs' targets; without it, half the time is saved.
    bool likelihood = true;
    std::vector<std::string>* answers = nullptr;     // takes the answers' texts
    std::function<void(int64_t answered)> progress;  // hears now and then how far it is
  };
  /// Answers every pair's input and judges the answers, unless labels are missing: there are no
  /// metrics then. Every rank of the model's mesh calls it and
  /// gets all of it.
  Evaluation evaluate(const Model& model, const Poll& poll, const Extras& extras) const;
  Evaluation evaluate(const Model& model, const Poll& poll = {}) const {
    return evaluate(model, poll, Extras());
  }

 private:
  std::unique_ptr<Task> task_;
  const Tokenizer& tokenizer_;
  std::string name_;
  GenerateOptions generate_;
  TextToTextEvalSet set_;

  void add_likelihood(const Model& model, const Poll& poll, Evaluation& out) const;
  std::vector<std::string> answer(const Model& model, const Poll& poll, const Extras& extras) const;
};

}  // namespace sw
