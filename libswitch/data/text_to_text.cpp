#include "libswitch/data/text_to_text.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/base/parallel.h"
#include "libswitch/data/sample_order.h"

namespace sw {
namespace {

constexpr size_t kOpenRows = 16;
constexpr size_t kPackings = 4;
constexpr uint64_t kOrderOfPairs = 0, kOrderOfRows = 1;
constexpr int64_t kPairsPerChunk = 256;

DataVocabulary vocabulary_of(const Tokenizer& tokenizer) {
  return {tokenizer.vocab_size(), tokenizer.padded_vocab_size(), tokenizer.sha256()};
}

int64_t checked_length(int64_t given, int64_t own, const char* side) {
  const int64_t length = given > 0 ? given : own;
  SW_CHECK(length >= 2, usage, "{} length {}: expected at least 2, a token and the end", side,
           length);
  return length;
}

// Ids of a text, cut and ended; whether it was cut.
bool encode_side(const Tokenizer& tokenizer, const std::string& text, int64_t length,
                 std::vector<int32_t>& ids) {
  ids.clear();
  tokenizer.encode(text, ids);
  const bool cut = static_cast<int64_t>(ids.size()) > length - 1;
  if (cut) ids.resize(static_cast<size_t>(length - 1));
  ids.push_back(Tokenizer::kEos);
  return cut;
}

void clear_batch(int64_t rows, int64_t input_length, int64_t target_length, bool segments,
                 Batch& batch) {
  SW_CHECK(rows >= 0, internal, "batch of {} rows", rows);
  batch.rows = rows, batch.input_length = input_length, batch.target_length = target_length;
  batch.inputs.assign(static_cast<size_t>(rows * input_length), Tokenizer::kPad);
  batch.targets.assign(static_cast<size_t>(rows * target_length), Tokenizer::kPad);
  batch.input_segments.assign(segments ? batch.inputs.size() : 0, 0);
  batch.target_segments.assign(segments ? batch.targets.size() : 0, 0);
}

// A source's pairs in rows: row r holds pairs[row_begin[r]] .. pairs[row_begin[r + 1] - 1].
struct Packing {
  std::vector<uint32_t> pairs;
  std::vector<uint32_t> row_begin{0};

  uint64_t rows() const { return row_begin.size() - 1; }
  void close(const std::vector<uint32_t>& row) {
    pairs.insert(pairs.end(), row.begin(), row.end());
    row_begin.push_back(static_cast<uint32_t>(pairs.size()));
  }
};

// Packs pairs in the order of `permutation`.
Packing pack_pairs(const TokenizedPairs& pairs, const FeistelPermutation& permutation, bool pack,
                   int64_t input_length, int64_t target_length) {
  struct OpenRow {
    std::vector<uint32_t> pairs;
    int64_t inputs_left, targets_left;
  };
  Packing packing;
  packing.pairs.reserve(permutation.size());
  std::deque<OpenRow> open;
  for (uint64_t i = 0; i < permutation.size(); ++i) {
    const auto pair = static_cast<uint32_t>(permutation(i));
    if (!pack) {
      packing.close({pair});
      continue;
    }
    const auto inputs = static_cast<int64_t>(pairs.input(pair).size());
    const auto targets = static_cast<int64_t>(pairs.target(pair).size());
    auto row = std::find_if(open.begin(), open.end(), [&](const OpenRow& r) {
      return r.inputs_left >= inputs && r.targets_left >= targets;
    });
    if (row == open.end()) {
      if (open.size() == kOpenRows) {
        packing.close(open.front().pairs);
        open.pop_front();
      }
      row = open.insert(open.end(), {{}, input_length, target_length});
    }
    row->pairs.push_back(pair);
    row->inputs_left -= inputs;
    row->targets_left -= targets;
  }
  for (const OpenRow& row : open) packing.close(row.pairs);
  return packing;
}

struct Source {
  std::string name;
  TokenizedPairs pairs;

  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<const Packing>> packings;  // as far as they were needed
  mutable std::vector<uint64_t> epoch_begin{0};                  // rows before epochs 0, 1, ..

  Source(std::string n, TokenizedPairs p) : name(std::move(n)), pairs(std::move(p)) {}
};

}  // namespace

TaskSource parse_task_source(const std::string& text) {
  const size_t equals = text.rfind('=');
  const size_t colon = text.find(':');
  // A file may have an equals sign in its name; one that exists is taken by its name.
  const bool exists = std::filesystem::exists(text) ||
                      (colon != text.npos && std::filesystem::exists(text.substr(colon + 1)));
  if (equals == text.npos || exists) return {text, 0};
  const DataSource parsed = parse_data_source(text, "--task");
  return {parsed.path.string(), parsed.weight};
}

TokenizedPairs::TokenizedPairs(std::span<const TextPair> pairs, const Tokenizer& tokenizer,
                               int64_t input_length, int64_t target_length,
                               const std::string& name) {
  struct Chunk {
    std::vector<int32_t> inputs, targets;
    std::vector<size_t> input_sizes, target_sizes;
    int64_t cut_inputs = 0, cut_targets = 0;
  };
  const auto count = static_cast<int64_t>(pairs.size());
  std::vector<Chunk> chunks(static_cast<size_t>((count + kPairsPerChunk - 1) / kPairsPerChunk));
  parallel_for(count, kPairsPerChunk, [&](int64_t begin, int64_t end) {
    Chunk& chunk = chunks[static_cast<size_t>(begin / kPairsPerChunk)];
    std::vector<int32_t> ids;
    for (int64_t i = begin; i < end; ++i) {
      const TextPair& pair = pairs[static_cast<size_t>(i)];
      chunk.cut_inputs += encode_side(tokenizer, pair.input, input_length, ids);
      chunk.inputs.insert(chunk.inputs.end(), ids.begin(), ids.end());
      chunk.input_sizes.push_back(ids.size());
      chunk.cut_targets += encode_side(tokenizer, pair.target, target_length, ids);
      chunk.targets.insert(chunk.targets.end(), ids.begin(), ids.end());
      chunk.target_sizes.push_back(ids.size());
    }
  });
  for (const TextPair& pair : pairs) {
    text_bytes_ += static_cast<int64_t>(sizeof(TextPair) + pair.input.size() + pair.target.size());
  }
  input_ends_.reserve(pairs.size());
  target_ends_.reserve(pairs.size());
  uint64_t input_end = 0, target_end = 0;
  for (Chunk& chunk : chunks) {
    inputs_.insert(inputs_.end(), chunk.inputs.begin(), chunk.inputs.end());
    targets_.insert(targets_.end(), chunk.targets.begin(), chunk.targets.end());
    for (const size_t size : chunk.input_sizes) input_ends_.push_back(input_end += size);
    for (const size_t size : chunk.target_sizes) target_ends_.push_back(target_end += size);
    cut_inputs_ += chunk.cut_inputs;
    cut_targets_ += chunk.cut_targets;
    chunk = {};
  }
  std::string cut;
  const auto count_cut = [&](int64_t number, const char* side, int64_t length) {
    if (number == 0) return;
    cut += fmt::format("{}{} of {} {} to {} tokens", cut.empty() ? "" : ", ", number, count, side,
                       length);
  };
  count_cut(cut_inputs_, "inputs", input_length);
  count_cut(cut_targets_, "targets", target_length);
  if (!cut.empty()) log::warn("{}: cut {}", name, cut);
}

int64_t TokenizedPairs::memory_bytes() const {
  const auto bytes = [](const auto& v) { return static_cast<int64_t>(v.capacity() * sizeof v[0]); };
  return bytes(inputs_) + bytes(targets_) + bytes(input_ends_) + bytes(target_ends_) + text_bytes_;
}

Hash128 TokenizedPairs::hash() const {
  Hash128Stream stream;
  const auto put = [&](const auto& v) { stream.update(v.data(), v.size() * sizeof v[0]); };
  put(input_ends_), put(target_ends_), put(inputs_), put(targets_);
  return stream.digest();
}

struct TextToTextDataset::State {
  TextToTextOptions options;
  DataVocabulary vocabulary;
  std::vector<std::unique_ptr<Source>> sources;
  std::unique_ptr<MixSchedule> mix;
  Hash128 manifest;

  RngKey key(int64_t source, uint64_t epoch, uint64_t use) const {
    return rng_key(options.seed, RngPurpose::shuffle, epoch, static_cast<uint64_t>(source), use);
  }

  // Makes the source's next packing, under its lock or before it is shared.
  void pack_next(int64_t source) const {
    const Source& s = *sources[static_cast<size_t>(source)];
    const uint64_t number = s.packings.size();
    const FeistelPermutation permutation(static_cast<uint64_t>(s.pairs.size()),
                                         key(source, number, kOrderOfPairs));
    s.packings.push_back(std::make_unique<const Packing>(pack_pairs(
        s.pairs, permutation, options.pack, options.input_length, options.target_length)));
    s.epoch_begin.push_back(s.epoch_begin.back() + s.packings.back()->rows());
  }

  struct Place {
    Position position;
    const Packing* packing = nullptr;
    uint64_t row = 0;  // of the packing
  };
  Place place(uint64_t ordinal) const {
    const MixSchedule::Draw draw = (*mix)(ordinal);
    const Source& s = *sources[static_cast<size_t>(draw.source)];
    const std::lock_guard lock(s.mutex);
    while (s.packings.size() < kPackings && s.epoch_begin.back() <= draw.ordinal) {
      pack_next(draw.source);
    }
    // Epochs go through the packings in turn, all of them together being a round.
    const uint64_t round = s.packings.size() == kPackings ? draw.ordinal / s.epoch_begin.back() : 0;
    const uint64_t in_round = draw.ordinal - round * s.epoch_begin.back();
    const auto after = std::upper_bound(s.epoch_begin.begin(), s.epoch_begin.end(), in_round);
    const auto number = static_cast<uint64_t>(after - s.epoch_begin.begin()) - 1;
    const uint64_t epoch = round * kPackings + number, row = in_round - s.epoch_begin[number];
    const Packing& packing = *s.packings[number];
    const FeistelPermutation order(packing.rows(), key(draw.source, epoch, kOrderOfRows));
    return {{draw.source, epoch, row}, &packing, order(row)};
  }

  Hash128 hash() const {
    Hash128Stream stream;
    const auto put = [&](const auto& value) { stream.update(&value, sizeof value); };
    put(uint32_t{1});  // version of this list
    stream.update(vocabulary.sha256.data(), 32);
    put(options.input_length), put(options.target_length), put(options.pack);
    for (size_t i = 0; i < sources.size(); ++i) {
      const Hash128 ids = sources[i]->pairs.hash();
      put(mix->parts()[i]), put(sources[i]->pairs.size()), put(ids.low), put(ids.high);
    }
    return stream.digest();
  }
};

TextToTextDataset::TextToTextDataset(const std::vector<TaskSource>& sources,
                                     const Tokenizer& tokenizer, const TextToTextOptions& options)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  SW_CHECK(!sources.empty(), usage, "no task given");
  s.options = options;
  s.vocabulary = vocabulary_of(tokenizer);
  std::vector<std::unique_ptr<Task>> tasks;
  int64_t input_length = 0, target_length = 0;
  bool any_weight = false;
  for (const TaskSource& source : sources) {
    tasks.push_back(Task::open(source.spec));
    input_length = std::max(input_length, tasks.back()->lengths().first);
    target_length = std::max(target_length, tasks.back()->lengths().second);
    any_weight |= source.weight != 0;
  }
  s.options.input_length = checked_length(options.input_length, input_length, "input");
  s.options.target_length = checked_length(options.target_length, target_length, "target");
  std::vector<double> weights;
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string name = tasks[i]->name();
    s.sources.push_back(std::make_unique<Source>(
        name, TokenizedPairs(tasks[i]->training_pairs(), tokenizer, s.options.input_length,
                             s.options.target_length, tasks[i]->file())));
    tasks[i].reset();
    const TokenizedPairs& pairs = s.sources.back()->pairs;
    SW_CHECK(pairs.size() <= INT32_MAX, usage, "{}: {} pairs, at most {} fit a source", name,
             pairs.size(), INT32_MAX);
    s.pack_next(static_cast<int64_t>(i));
    const auto rows = static_cast<double>(s.sources.back()->packings[0]->rows());
    const auto count = static_cast<double>(pairs.size());
    const double rate = sources[i].weight != 0 ? sources[i].weight : any_weight ? 1.0 : count;
    weights.push_back(rate * rows / count);
  }
  s.mix = std::make_unique<MixSchedule>(weights);
  s.manifest = s.hash();
}
TextToTextDataset::~TextToTextDataset() = default;

void TextToTextDataset::fill(uint64_t first_ordinal, int64_t rows, Batch& batch) const {
  const State& s = *state_;
  clear_batch(rows, input_length(), target_length(), s.options.pack, batch);
  for (int64_t row = 0; row < rows; ++row) {
    const State::Place place = s.place(first_ordinal + static_cast<uint64_t>(row));
    const TokenizedPairs& pairs = s.sources[static_cast<size_t>(place.position.source)]->pairs;
    int64_t input_at = row * input_length(), target_at = row * target_length();
    const auto put = [](std::span<const int32_t> ids, int64_t at, int32_t segment,
                        std::vector<int32_t>& out, std::vector<int32_t>& segments) {
      std::copy(ids.begin(), ids.end(), out.begin() + at);
      if (!segments.empty()) std::fill_n(segments.begin() + at, ids.size(), segment);
      return at + static_cast<int64_t>(ids.size());
    };
    int32_t segment = 0;
    const auto& begin = place.packing->row_begin;
    for (uint32_t i = begin[place.row]; i < begin[place.row + 1]; ++i) {
      const uint32_t pair = place.packing->pairs[i];
      ++segment;
      input_at = put(pairs.input(pair), input_at, segment, batch.inputs, batch.input_segments);
      target_at = put(pairs.target(pair), target_at, segment, batch.targets, batch.target_segments);
    }
  }
}

TextToTextDataset::Position TextToTextDataset::position(uint64_t ordinal) const {
  return state_->place(ordinal).position;
}
const DataVocabulary& TextToTextDataset::vocabulary() const { return state_->vocabulary; }
Hash128 TextToTextDataset::manifest() const { return state_->manifest; }
int64_t TextToTextDataset::input_length() const { return state_->options.input_length; }
int64_t TextToTextDataset::target_length() const { return state_->options.target_length; }
int64_t TextToTextDataset::sources() const { return static_cast<int64_t>(state_->sources.size()); }
const std::string& TextToTextDataset::name(int64_t source) const {
  return state_->sources[static_cast<size_t>(source)]->name;
}
const TokenizedPairs& TextToTextDataset::pairs(int64_t source) const {
  return state_->sources[static_cast<size_t>(source)]->pairs;
}
uint64_t TextToTextDataset::rows(int64_t source) const {
  return state_->sources[static_cast<size_t>(source)]->epoch_begin[1];
}
double TextToTextDataset::share(int64_t source) const {
  return static_cast<double>(state_->mix->parts()[static_cast<size_t>(source)]) /
         static_cast<double>(state_->mix->period());
}

PairRows::PairRows(const TokenizedPairs& pairs, std::vector<int64_t> rows)
    : pairs_(&pairs), rows_(std::move(rows)) {
  constexpr int64_t kMultiple = 8;
  const auto rounded = [](int64_t n) { return (n + kMultiple - 1) / kMultiple * kMultiple; };
  for (const int64_t row : rows_) {
    input_length_ = std::max(input_length_, rounded(std::ssize(pairs.input(row))));
    target_length_ = std::max(target_length_, rounded(std::ssize(pairs.target(row))));
  }
}

void PairRows::fill(int64_t first, int64_t rows, Batch& batch) const {
  clear_batch(rows, input_length_, target_length_, false, batch);
  for (int64_t row = 0; row < std::min(rows, this->rows() - first); ++row) {
    const int64_t pair = rows_[static_cast<size_t>(first + row)];
    const auto input = pairs_->input(pair), target = pairs_->target(pair);
    std::copy(input.begin(), input.end(), batch.inputs.begin() + row * input_length_);
    std::copy(target.begin(), target.end(), batch.targets.begin() + row * target_length_);
  }
}

TextToTextEvalSet::TextToTextEvalSet(const Task& task, const Tokenizer& tokenizer,
                                     int64_t input_length, int64_t target_length)
    : vocabulary_(vocabulary_of(tokenizer)),
      pairs_(task.pairs(), tokenizer, checked_length(input_length, task.lengths().first, "input"),
             checked_length(target_length, task.lengths().second, "target"), task.file()) {}

PairRows TextToTextEvalSet::rows() const {
  std::vector<int64_t> rows(static_cast<size_t>(pairs_.size()));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  return {pairs_, std::move(rows)};
}

std::vector<PairRows> TextToTextEvalSet::by_length() const {
  constexpr int64_t kShortest = 32;
  std::map<int64_t, std::vector<int64_t>> groups;
  for (int64_t i = 0; i < pairs_.size(); ++i) {
    int64_t limit = kShortest;
    while (limit < std::ssize(pairs_.input(i))) limit *= 2;
    groups[limit].push_back(i);
  }
  std::vector<PairRows> out;
  for (auto& [limit, rows] : groups) out.emplace_back(pairs_, std::move(rows));
  return out;
}

std::vector<std::vector<int32_t>> TextToTextEvalSet::prompts() const {
  std::vector<std::vector<int32_t>> out;
  out.reserve(static_cast<size_t>(pairs_.size()));
  for (int64_t i = 0; i < pairs_.size(); ++i) {
    out.emplace_back(pairs_.input(i).begin(), pairs_.input(i).end());
  }
  return out;
}

}  // namespace sw
