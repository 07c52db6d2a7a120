// Training and evaluation rows from pairs of text: tokenised, cut to the lengths of the model,
// several to a row.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libswitch/base/hash.h"
#include "libswitch/data/dataset.h"
#include "libswitch/data/tasks/task.h"
#include "libswitch/data/tokenizer.h"

namespace sw {

struct TaskSource {
  std::string spec;   // as Task::open takes it
  double weight = 0;  // relative rate of sampling pairs; 0: not given
};

/// "[NAME:]FILE" or "[NAME:]FILE=WEIGHT", as --task takes it. Throws usage for a weight that is no
/// positive number.
TaskSource parse_task_source(const std::string& text);

/// Token ids of pairs, each side cut to its length less one and ended by end of sequence. Some four
/// bytes a token.
class TokenizedPairs {
 public:
  /// Encodes on all threads. `name` stands in the warning that counts what was cut. Lengths of at
  /// least 2.
  TokenizedPairs(std::span<const TextPair> pairs, const Tokenizer& tokenizer, int64_t input_length,
                 int64_t target_length, const std::string& name);

  int64_t size() const { return static_cast<int64_t>(input_ends_.size()); }
  std::span<const int32_t> input(int64_t i) const { return side(inputs_, input_ends_, i); }
  std::span<const int32_t> target(int64_t i) const { return side(targets_, target_ends_, i); }
  int64_t cut_inputs() const { return cut_inputs_; }
  int64_t cut_targets() const { return cut_targets_; }
  Hash128 hash() const;
  /// Of the ids, and of the texts, whose place the heap keeps when they are gone.
  int64_t memory_bytes() const;

 private:
  static std::span<const int32_t> side(const std::vector<int32_t>& ids,
                                       const std::vector<uint64_t>& ends, int64_t i) {
    const uint64_t begin = i == 0 ? 0 : ends[static_cast<size_t>(i - 1)];
    return std::span(ids).subspan(begin, ends[static_cast<size_t>(i)] - begin);
  }

  std::vector<int32_t> inputs_, targets_;
  std::vector<uint64_t> input_ends_, target_ends_;
  int64_t cut_inputs_ = 0, cut_targets_ = 0, text_bytes_ = 0;
};

struct TextToTextOptions {
  int64_t input_length = 0, target_length = 0;  // 0: the longest that the tasks have of their own
  bool pack = true;                             // several pairs share a row
  uint64_t seed = 0;
};

/// The endless stream of training rows of one task or of a mixture. Row `ordinal` is a pure
/// function of (manifest, seed, ordinal), and costs the same wherever it is. A source has four
/// packings of its pairs, each greedy over a permutation of its own: a pair goes into the first of
/// 16 open rows that has room for both its sides; when none has, the oldest row is closed. An epoch
/// is one of the packings, in turn, its rows in a new order: every pair comes once an epoch.
/// Sources alternate by MixSchedule in the rate of their rows that gives their pairs the mixture's
/// rate: by size, or by the weights given (1 where only others have one). Memory: the token ids,
/// and 16 bytes a pair.
class TextToTextDataset {
 public:
  /// Opens and tokenises the tasks. Throws as Task::open and Task::training_pairs; usage for
  /// lengths below 2.
  TextToTextDataset(const std::vector<TaskSource>& sources, const Tokenizer& tokenizer,
                    const TextToTextOptions& options);
  ~TextToTextDataset();
  TextToTextDataset(const TextToTextDataset&) = delete;
  TextToTextDataset& operator=(const TextToTextDataset&) = delete;

  /// Rows [first_ordinal, first_ordinal + rows) into `batch`, whose buffers are reused; with
  /// segments when packed. Thread-safe.
  void fill(uint64_t first_ordinal, int64_t rows, Batch& batch) const;

  /// Where a row comes from.
  struct Position {
    int64_t source = 0;
    uint64_t epoch = 0, row = 0;  // of the source
  };
  Position position(uint64_t ordinal) const;

  const DataVocabulary& vocabulary() const;
  /// Names the data: vocabulary, token ids, mixture, lengths, packing; not file names.
  Hash128 manifest() const;
  int64_t input_length() const;
  int64_t target_length() const;
  int64_t sources() const;
  /// Name of a source's task (Task::name).
  const std::string& name(int64_t source) const;
  const TokenizedPairs& pairs(int64_t source) const;
  /// Rows in the first epoch of a source.
  uint64_t rows(int64_t source) const;
  /// Share of rows that come from a source.
  double share(int64_t source) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Some of the pairs, one a row, padded to the longest of them.
class PairRows : public EvalRows {
 public:
  /// `pairs` must outlive it.
  PairRows(const TokenizedPairs& pairs, std::vector<int64_t> rows);

  int64_t rows() const override { return std::ssize(rows_); }
  void fill(int64_t first, int64_t rows, Batch& batch) const override;
  int64_t input_length() const override { return input_length_; }
  int64_t target_length() const override { return target_length_; }

 private:
  const TokenizedPairs* pairs_;
  std::vector<int64_t> rows_;
  int64_t input_length_ = 0, target_length_ = 0;
};

/// What a task is evaluated on: its pairs, not packed.
class TextToTextEvalSet {
 public:
  /// Lengths of 0 are the task's own; what is longer is cut. The task is read here and not kept.
  TextToTextEvalSet(const Task& task, const Tokenizer& tokenizer, int64_t input_length = 0,
                    int64_t target_length = 0);

  const TokenizedPairs& pairs() const { return pairs_; }
  /// All rows, in order.
  PairRows rows() const;
  /// The same in groups of like length (inputs of at most 32 tokens, 64, 128, ..), in order within
  /// each, so that little is padding. A group has one shape, whatever the number of ranks.
  std::vector<PairRows> by_length() const;
  /// Inputs as a generator takes them.
  std::vector<std::vector<int32_t>> prompts() const;
  const DataVocabulary& vocabulary() const { return vocabulary_; }

 private:
  DataVocabulary vocabulary_;
  TokenizedPairs pairs_;
};

}  // namespace sw
