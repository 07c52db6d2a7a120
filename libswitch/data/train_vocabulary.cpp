#include "libswitch/data/train_vocabulary.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <queue>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/base/rng.h"

namespace sw {
namespace {

constexpr size_t kMaxLineBytes = 4096;  // SentencePiece passes over lines longer than 4192 bytes

// Keeps the lines of lowest random priority whose bytes fit the budget: a uniform sample without
// knowing the length of the corpus.
class LineSample {
 public:
  LineSample(int64_t budget, uint64_t seed)
      : budget_(budget), key_(rng_key(seed, RngPurpose::sampling)) {}

  void add(std::string_view line) {
    const uint64_t index = count_++;
    const auto words = philox(key_, index);
    const uint64_t priority = uint64_t{words[0]} << 32 | words[1];
    if (full_ && priority >= heap_.front().priority) return;
    heap_.push_back({priority, index, std::string(line)});
    std::push_heap(heap_.begin(), heap_.end());
    bytes_ += static_cast<int64_t>(line.size());
    while (bytes_ > budget_ && heap_.size() > 1) {
      full_ = true;
      bytes_ -= static_cast<int64_t>(heap_.front().text.size());
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
  }

  // The sample in the order of the corpus.
  std::vector<std::string> take() {
    std::sort(heap_.begin(), heap_.end(),
              [](const Line& a, const Line& b) { return a.index < b.index; });
    std::vector<std::string> lines;
    lines.reserve(heap_.size());
    for (Line& line : heap_) lines.push_back(std::move(line.text));
    heap_.clear();
    return lines;
  }
  int64_t bytes() const { return bytes_; }
  bool full() const { return full_; }

 private:
  struct Line {
    uint64_t priority, index;
    std::string text;
    bool operator<(const Line& other) const {
      return std::pair(priority, index) < std::pair(other.priority, other.index);
    }
  };
  int64_t budget_, bytes_ = 0;
  RngKey key_;
  uint64_t count_ = 0;
  bool full_ = false;
  std::vector<Line> heap_;
};

// Lines of a document, long ones cut at a space, or failing that between two characters.
template <class Fn>
void for_each_line(std::string_view text, const Fn& fn) {
  while (!text.empty()) {
    size_t end = text.find('\n');
    size_t skip = 1;
    if (end == text.npos) end = text.size(), skip = 0;
    if (end > kMaxLineBytes) {
      skip = 1;
      end = text.rfind(' ', kMaxLineBytes);
      if (end == text.npos || end == 0) {
        skip = 0, end = kMaxLineBytes;
        while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
      }
    }
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + skip);
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == line.npos) continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") + 1 - first);
    fn(line);
  }
}

class LineIterator : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(std::vector<std::string> lines) : lines_(std::move(lines)) {}
  bool done() const override { return at_ == lines_.size(); }
  void Next() override { std::string().swap(lines_[at_++]); }  // the trainer keeps its own copy
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> lines_;
  size_t at_ = 0;
};

// The last whole number in a message of SentencePiece, or -1.
int64_t last_number(const std::string& text) {
  const size_t end = text.find_last_of("0123456789");
  if (end == text.npos) return -1;
  size_t begin = end;
  while (begin > 0 && text[begin - 1] >= '0' && text[begin - 1] <= '9') --begin;
  return end - begin < 18 ? std::stoll(text.substr(begin, end - begin + 1)) : -1;
}

}  // namespace

TrainedVocabulary train_vocabulary(TextSource& source, const VocabularyOptions& options) {
  SW_CHECK(options.model_type == "unigram" || options.model_type == "bpe", usage,
           "model type '{}' is unknown; expected unigram or bpe", options.model_type);
  SW_CHECK(options.pieces >= 16 && options.pieces <= 1'000'000, usage,
           "vocabulary size {} is outside 16 ... 1,000,000", options.pieces);
  SW_CHECK(options.character_coverage > 0 && options.character_coverage <= 1, usage,
           "character coverage {} is outside (0, 1]", options.character_coverage);
  SW_CHECK(options.sample_bytes >= (1 << 16), usage, "sample of {} bytes is below 64K",
           options.sample_bytes);

  TrainedVocabulary result;
  LineSample sample(options.sample_bytes, options.seed);
  std::string text;
  while (source.next(text)) {
    result.corpus_bytes += static_cast<int64_t>(text.size());
    for_each_line(text, [&](std::string_view line) { sample.add(line); });
  }
  result.sampled_bytes = sample.bytes();
  std::vector<std::string> lines = sample.take();
  result.sampled_lines = static_cast<int64_t>(lines.size());
  SW_CHECK(!lines.empty(), corrupt, "the input holds no text to train a vocabulary on");

  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", options.model_type},
      {"vocab_size", std::to_string(options.pieces)},
      {"character_coverage", fmt::format("{}", options.character_coverage)},
      {"byte_fallback", options.byte_fallback ? "true" : "false"},
      {"pad_id", "0"},
      {"eos_id", "1"},
      {"unk_id", "2"},
      {"bos_id", "-1"},
      {"pad_piece", "<pad>"},
      {"eos_piece", "</s>"},
      {"unk_piece", "<unk>"},
      // The shares of work decide the order of sums: a fixed number keeps bits off the machine.
      {"num_threads", "16"},
      {"train_extremely_large_corpus",
       options.sample_bytes > (int64_t{1} << 30) ? "true" : "false"},
      {"minloglevel", log::enabled(log::Level::debug) ? "0" : "3"},
  };
  LineIterator iterator(std::move(lines));
  const auto status =
      sentencepiece::SentencePieceTrainer::Train(arguments, &iterator, &result.model);
  if (status.ok()) return result;
  const std::string message = status.ToString();
  const int64_t limit = last_number(message);
  if (message.find("too high") != message.npos && limit >= 0) {
    fail(ErrorKind::usage,
         "vocabulary size {} is more than {} bytes of text allow; the largest possible is {}: give "
         "more text or a smaller --vocab-size",
         options.pieces, result.sampled_bytes, limit);
  }
  // "Vocabulary size is smaller than required_chars. 16 vs 32. ..."
  if (const size_t versus = message.find(" vs "); versus != message.npos) {
    const int64_t least = last_number(message.substr(0, message.find_first_of(".;", versus)));
    if (message.find("required_chars") != message.npos && least > 0) {
      fail(ErrorKind::usage,
           "vocabulary size {} is too small for this text, whose characters take {} pieces: give "
           "at least that as --vocab-size, or a lower --character-coverage",
           options.pieces, least);
    }
  }
  fail(ErrorKind::usage, "vocabulary of {} pieces cannot be trained on this text: {}",
       options.pieces, message);
}

}  // namespace sw
