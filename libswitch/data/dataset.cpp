#include "libswitch/data/dataset.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <mutex>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/data/block_cache.h"
#include "libswitch/data/sample_order.h"
#include "libswitch/data/shard_reader.h"
#include "libswitch/data/tokenizer.h"

namespace sw {
namespace {

constexpr int64_t kGroupBlocks = 64;
// One group being read, and the beginning of the next.
constexpr int64_t kCachedBlocks = 2 * kGroupBlocks;
constexpr uint64_t kEvalSeed = 0x5357495443485F45;  // fixed for all time: part of what is measured

struct Corruptor {
  SpanCorruption options;
  WindowLengths window;
  int64_t input_length = 0, target_length = 0;
  int32_t first_sentinel = 0, eos = 1;

  Corruptor() = default;
  Corruptor(const DatasetOptions& from, const ShardHeader& header) : options(from.corruption) {
    window = window_lengths(from.input_length, options);
    input_length = from.input_length;
    target_length = from.target_length > 0 ? from.target_length : window.targets;
    SW_CHECK(target_length >= 2, usage,
             "target length {}: expected at least 2, a token and the end", target_length);
    const int64_t spans = (window.inputs + window.targets - window.tokens) / 2 - 1;
    SW_CHECK(spans <= Tokenizer::kSentinels, usage,
             "input length {}: a window has {} spans, but vocabularies have {} sentinels; give a "
             "shorter --input-length or a longer --mean-span",
             input_length, spans, Tokenizer::kSentinels);
    first_sentinel = static_cast<int32_t>(header.vocab_size) - 1;
    eos = header.eos == kNoToken ? Tokenizer::kEos : static_cast<int32_t>(header.eos);
    if (target_length < window.targets) {
      log::warn("target length {} cuts the {} ids that windows of {} tokens give", target_length,
                window.targets, window.tokens);
    }
  }

  void write_row(std::span<const int32_t> tokens, RngKey key, int64_t row, Batch& batch) const {
    RngStream rng(key);
    const std::vector<uint8_t> mask = noise_mask(static_cast<int64_t>(tokens.size()), options, rng);
    const CorruptedWindow out =
        corrupt_window(tokens, mask, first_sentinel, eos, input_length, target_length);
    std::copy(out.inputs.begin(), out.inputs.end(), batch.inputs.begin() + row * input_length);
    std::copy(out.targets.begin(), out.targets.end(), batch.targets.begin() + row * target_length);
  }

  void clear(int64_t rows, Batch& batch) const {
    SW_CHECK(rows >= 0, internal, "batch of {} rows", rows);
    batch.rows = rows, batch.input_length = input_length, batch.target_length = target_length;
    batch.inputs.assign(static_cast<size_t>(rows * input_length), Tokenizer::kPad);
    batch.targets.assign(static_cast<size_t>(rows * target_length), Tokenizer::kPad);
    batch.input_segments.clear();
    batch.target_segments.clear();
  }
};

DataVocabulary vocabulary_of(const ShardHeader& header) {
  DataVocabulary vocabulary;
  vocabulary.vocab_size = header.vocab_size;
  constexpr int64_t kMultiple = Tokenizer::kPaddingMultiple;
  vocabulary.padded_vocab_size = (vocabulary.vocab_size + kMultiple - 1) / kMultiple * kMultiple;
  vocabulary.sha256 = header.vocab_sha256;
  return vocabulary;
}

void check_content(const ShardFile& file) {
  SW_CHECK(file.header().content == 0, corrupt,
           "{}: holds input and target pairs, expected running text", file.name());
}

void check_not_empty(const ShardFile& file) {
  SW_CHECK(file.tokens() > 0, corrupt, "{}: holds no tokens; was the text it was made of empty?",
           file.name());
}

// Order of the windows of one epoch: where each group of 64 permuted blocks begins.
struct Epoch {
  FeistelPermutation blocks;
  std::vector<uint64_t> group_begin;  // windows before each group, and the total
};

struct Source {
  explicit Source(const std::filesystem::path& path) : file(path), cache(file, kCachedBlocks) {}

  ShardFile file;
  mutable BlockCache cache;
  std::vector<uint32_t> block_windows;  // windows in each block
  uint64_t windows = 0;
  mutable std::mutex mutex;
  mutable std::vector<std::pair<uint64_t, std::shared_ptr<const Epoch>>> epochs;  // latest two

  // The epoch's order, built once and kept while it is in use.
  std::shared_ptr<const Epoch> epoch(uint64_t number, uint64_t seed, int64_t source) const {
    const std::lock_guard lock(mutex);
    for (const auto& [known, order] : epochs) {
      if (known == number) return order;
    }
    const auto n = static_cast<uint64_t>(file.blocks());
    auto order = std::make_shared<Epoch>(
        Epoch{FeistelPermutation(n, rng_key(seed, RngPurpose::shuffle, number,
                                            static_cast<uint64_t>(source), ~uint64_t{0})),
              {}});
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; ++i) {
      if (i % kGroupBlocks == 0) order->group_begin.push_back(sum);
      sum += block_windows[order->blocks(i)];
    }
    order->group_begin.push_back(sum);
    if (epochs.size() == 2) epochs.erase(epochs.begin());
    epochs.emplace_back(number, order);
    return order;
  }
};

}  // namespace

DataSource parse_data_source(const std::string& text, const char* option) {
  DataSource source{text, 0};
  const size_t equals = text.rfind('=');
  // A file may have an equals sign in its name; one that exists is taken by its name.
  if (equals == text.npos || std::filesystem::exists(text)) return source;
  double weight = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + equals + 1, end, weight);
  SW_CHECK(parsed.ec == std::errc() && parsed.ptr == end && std::isfinite(weight) && weight > 0,
           usage, "{} {}: the weight after '=' is '{}', expected a positive number", option, text,
           text.substr(equals + 1));
  SW_CHECK(equals > 0, usage, "{} {}: expected a file before '='", option, text);
  return {text.substr(0, equals), weight};
}

struct Dataset::State {
  DatasetOptions options;
  Corruptor corruptor;
  std::vector<std::unique_ptr<Source>> sources;
  std::unique_ptr<MixSchedule> mix;
  DataVocabulary vocabulary;
  Hash128 manifest;

  struct Place {
    Dataset::Position position;
    uint64_t index = 0;  // of the sample in its epoch
  };
  Place place(uint64_t ordinal) const {
    const MixSchedule::Draw draw = (*mix)(ordinal);
    const Source& source = *sources[static_cast<size_t>(draw.source)];
    Place out;
    out.position.source = draw.source;
    out.position.epoch = draw.ordinal / source.windows;
    out.index = draw.ordinal % source.windows;
    const auto epoch = source.epoch(out.position.epoch, options.seed, draw.source);
    const auto& begin = epoch->group_begin;
    const auto after = std::upper_bound(begin.begin(), begin.end(), out.index);
    const auto group = static_cast<uint64_t>(after - begin.begin()) - 1;
    const FeistelPermutation shuffle(begin[group + 1] - begin[group],
                                     rng_key(options.seed, RngPurpose::shuffle, out.position.epoch,
                                             static_cast<uint64_t>(draw.source), group));
    uint64_t window = shuffle(out.index - begin[group]);
    for (uint64_t i = group * kGroupBlocks;; ++i) {
      const uint64_t block = epoch->blocks(i);
      if (window < source.block_windows[block]) {
        out.position.block = static_cast<int64_t>(block);
        out.position.window = static_cast<int64_t>(window);
        return out;
      }
      window -= source.block_windows[block];
    }
  }

  Hash128 hash() const {
    Hash128Stream stream;
    const auto put = [&](const auto& value) { stream.update(&value, sizeof value); };
    put(uint32_t{1});  // version of this list
    stream.update(vocabulary.sha256.data(), 32);
    put(corruptor.window.tokens), put(corruptor.input_length), put(corruptor.target_length);
    put(options.corruption.noise_density), put(options.corruption.mean_span);
    for (size_t s = 0; s < sources.size(); ++s) {
      const ShardFile& file = sources[s]->file;
      put(mix->parts()[s]), put(file.segments()), put(file.blocks());
      for (int64_t i = 0; i < file.segments(); ++i) {
        stream.update(file.segment_header(i).segment_id.data(), 16);
      }
      for (int64_t b = 0; b < file.blocks(); ++b) {
        put(file.row(b).n_tokens), put(file.row(b).raw_check);
      }
    }
    return stream.digest();
  }
};

Dataset::Dataset(const std::vector<DataSource>& sources, const DatasetOptions& options)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.options = options;
  SW_CHECK(!sources.empty(), usage, "no data given");
  SW_CHECK(std::isfinite(options.temperature) && options.temperature > 0, usage,
           "temperature {} is not positive", options.temperature);
  bool any_weight = false;
  for (const DataSource& source : sources) {
    s.sources.push_back(std::make_unique<Source>(source.path));
    Source& opened = *s.sources.back();
    check_content(opened.file);
    if (s.sources.size() == 1) {
      s.vocabulary = vocabulary_of(opened.file.header());
      s.corruptor = Corruptor(options, opened.file.header());
    }
    check_vocabulary(opened.file.header(), s.vocabulary.sha256, opened.file.name(),
                     s.sources.front()->file.name());
    for (int64_t b = 0; b < opened.file.blocks(); ++b) {
      opened.block_windows.push_back(
          static_cast<uint32_t>(opened.file.block_tokens(b) / s.corruptor.window.tokens));
      opened.windows += opened.block_windows.back();
    }
    check_not_empty(opened.file);
    SW_CHECK(opened.windows > 0, usage,
             "{}: {} tokens in {} blocks, less than one window of {} (input length {}); give more "
             "text or a smaller input length",
             opened.file.name(), opened.file.tokens(), opened.file.blocks(),
             s.corruptor.window.tokens, options.input_length);
    any_weight |= source.weight != 0;
  }
  std::vector<double> weights;
  for (size_t i = 0; i < sources.size(); ++i) {
    const double by_size =
        std::pow(static_cast<double>(s.sources[i]->windows), 1.0 / options.temperature);
    weights.push_back(sources[i].weight != 0 ? sources[i].weight : any_weight ? 1.0 : by_size);
  }
  s.mix = std::make_unique<MixSchedule>(weights);
  s.manifest = s.hash();
}
Dataset::~Dataset() = default;

void Dataset::fill(uint64_t first_ordinal, int64_t rows, Batch& batch) const {
  const State& s = *state_;
  s.corruptor.clear(rows, batch);
  std::vector<int32_t> tokens(static_cast<size_t>(s.corruptor.window.tokens));
  for (int64_t row = 0; row < rows; ++row) {
    const State::Place place = s.place(first_ordinal + static_cast<uint64_t>(row));
    const Source& source = *s.sources[static_cast<size_t>(place.position.source)];
    source.cache.get(place.position.block)
        ->copy(place.position.window * s.corruptor.window.tokens, s.corruptor.window.tokens,
               tokens.data());
    s.corruptor.write_row(tokens,
                          rng_key(s.options.seed, RngPurpose::span_mask, place.position.epoch,
                                  place.index, static_cast<uint64_t>(place.position.source)),
                          row, batch);
  }
}

Dataset::Position Dataset::position(uint64_t ordinal) const {
  return state_->place(ordinal).position;
}
const DataVocabulary& Dataset::vocabulary() const { return state_->vocabulary; }
Hash128 Dataset::manifest() const { return state_->manifest; }
WindowLengths Dataset::window() const { return state_->corruptor.window; }
int64_t Dataset::input_length() const { return state_->corruptor.input_length; }
int64_t Dataset::target_length() const { return state_->corruptor.target_length; }
int64_t Dataset::sources() const { return static_cast<int64_t>(state_->sources.size()); }
uint64_t Dataset::windows(int64_t source) const {
  return state_->sources[static_cast<size_t>(source)]->windows;
}
uint64_t Dataset::tokens() const {
  uint64_t tokens = 0;
  for (const auto& source : state_->sources) tokens += source->file.tokens();
  return tokens;
}
double Dataset::share(int64_t source) const {
  return static_cast<double>(state_->mix->parts()[static_cast<size_t>(source)]) /
         static_cast<double>(state_->mix->period());
}
const std::string& Dataset::shard_description() const {
  return state_->sources.front()->file.header().json;
}

struct EvalSet::State {
  explicit State(const std::filesystem::path& path) : file(path), cache(file, 4) {}
  ShardFile file;
  mutable BlockCache cache;
  Corruptor corruptor;
  DataVocabulary vocabulary;
  std::vector<uint64_t> block_begin;  // tokens before each block, and the total
  int64_t windows = 0;
};

EvalSet::EvalSet(const std::filesystem::path& path, const DatasetOptions& options,
                 int64_t max_tokens)
    : state_(std::make_unique<State>(path)) {
  State& s = *state_;
  check_content(s.file);
  s.corruptor = Corruptor(options, s.file.header());
  s.vocabulary = vocabulary_of(s.file.header());
  s.block_begin.push_back(0);
  for (int64_t b = 0; b < s.file.blocks(); ++b) {
    s.block_begin.push_back(s.block_begin.back() + static_cast<uint64_t>(s.file.block_tokens(b)));
  }
  check_not_empty(s.file);
  const auto all = static_cast<int64_t>(s.file.tokens());
  const int64_t used = max_tokens > 0 ? std::min(max_tokens, all) : all;
  s.windows = (used + s.corruptor.window.tokens - 1) / s.corruptor.window.tokens;
}
EvalSet::~EvalSet() = default;

int64_t EvalSet::rows() const { return state_->windows; }

void EvalSet::fill(int64_t first, int64_t rows, Batch& batch) const {
  const State& s = *state_;
  s.corruptor.clear(rows, batch);
  std::vector<int32_t> tokens;
  for (int64_t row = 0; row < std::min(rows, s.windows - first); ++row) {
    const auto window = static_cast<uint64_t>(first + row);
    const auto length = static_cast<uint64_t>(s.corruptor.window.tokens);
    uint64_t at = window * length;
    const uint64_t end = std::min(at + length, s.block_begin.back());
    tokens.clear();
    while (at < end) {
      const auto block = std::upper_bound(s.block_begin.begin(), s.block_begin.end(), at) -
                         s.block_begin.begin() - 1;
      const uint64_t begin = s.block_begin[static_cast<size_t>(block)];
      const uint64_t n = std::min(end, s.block_begin[static_cast<size_t>(block) + 1]) - at;
      const size_t old = tokens.size();
      tokens.resize(old + n);
      s.cache.get(block)->copy(static_cast<int64_t>(at - begin), static_cast<int64_t>(n),
                               tokens.data() + old);
      at += n;
    }
    s.corruptor.write_row(tokens, rng_key(kEvalSeed, RngPurpose::span_mask, 0, window), row, batch);
  }
}

const DataVocabulary& EvalSet::vocabulary() const { return state_->vocabulary; }
int64_t EvalSet::input_length() const { return state_->corruptor.input_length; }
int64_t EvalSet::target_length() const { return state_->corruptor.target_length; }

}  // namespace sw
