// Tasks as pairs of text: their public files, the casts of the T5 authors (Raffel et al. 2020,
// appendix D) and the metrics of their answers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sw {

struct TextPair {
  std::string input, target;
};

/// Whose answers are judged. SQuAD's text is trained on with spaces round punctuation; a model
/// answers in that spelling, other programs in that of the text.
enum class AnswerSource {
  model,      // of a model that was tuned on the pairs
  elsewhere,  // from a file: in the spelling that most of the punctuated answers have
};

/// One task with the examples of one file.
class Task {
 public:
  /// "NAME:FILE", a named task's raw data, or "FILE", pairs of text: JSON lines with "input" and
  /// "target", or two columns separated by a tab. Compressed files are read as they are; "-" is
  /// standard input. Throws usage for an unknown name, missing, and corrupt naming file and line.
  static std::unique_ptr<Task> open(const std::string& spec);
  ~Task();

  /// "boolq"; the file's path for pairs of text.
  const std::string& name() const;
  const std::string& file() const;
  /// One for each answer that is expected, in the order of the file.
  const std::vector<TextPair>& pairs() const;
  /// What files of answers call the pairs' questions (SQuAD, TriviaQA); empty where not all have an
  /// id.
  const std::vector<std::string>& ids() const;
  /// Whether every example has a label or answer; those of a test set may have none, their target
  /// is "<unk>".
  bool labelled() const;
  /// "test.jsonl: none of 3 examples has a label or answer (boolq's examples have passage, ..)", or
  /// how many have none; empty where all have one.
  std::string unlabelled_note() const;
  /// Throws corrupt, naming the first places, when examples have no label or answer.
  void check_judgeable() const;
  /// What a model is tuned on: of WSC only the true referents. Throws corrupt when examples have
  /// no label.
  const std::vector<TextPair>& training_pairs() const;
  /// Metrics of one answer a pair, in percent, named as in the t5 library, the one that the task is
  /// known by first. Throws usage for another number of answers, corrupt when examples have no
  /// label.
  std::vector<std::pair<std::string, double>> metrics(
      std::span<const std::string> answers, AnswerSource source = AnswerSource::model) const;
  /// Input and target length, end of sequence included: the T5 authors' where they have one.
  std::pair<int64_t, int64_t> lengths() const;

 private:
  struct State;
  explicit Task(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Names of all tasks.
std::vector<std::string> task_names();

}  // namespace sw
