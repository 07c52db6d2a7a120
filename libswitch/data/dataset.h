// Training and evaluation samples from token shards.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/base/hash.h"
#include "libswitch/data/span_corruption.h"

namespace sw {

/// Rows of one batch. Ids are padded with 0 behind the end-of-sequence. Segments (numbered from 1,
/// 0 = padding) are empty unless several examples share a row.
struct Batch {
  int64_t rows = 0, input_length = 0, target_length = 0;
  std::vector<int32_t> inputs;   // [rows, input_length]
  std::vector<int32_t> targets;  // [rows, target_length]
  std::vector<int32_t> input_segments, target_segments;
};

struct DataSource {
  std::filesystem::path path;
  double weight = 0;  // relative rate of sampling; 0: not given
};

/// "A.swt" or "A.swt=WEIGHT", as `option` takes it. Throws usage for a weight that is no positive
/// number.
DataSource parse_data_source(const std::string& text, const char* option = "--data");

struct DatasetOptions {
  int64_t input_length = 512;
  int64_t target_length = 0;  // 0: what input_length gives (512 -> 114)
  SpanCorruption corruption;
  uint64_t seed = 0;
  /// For sources without a weight: rate proportional to windows^(1/temperature). 1 reads every text
  /// equally often; the multilingual recipe is 1/0.3 (Xue et al. 2021, section 3.1).
  double temperature = 1;
};

/// What every user of shards must know of their vocabulary, without the vocabulary itself.
struct DataVocabulary {
  int64_t vocab_size = 0;         // sentinels included
  int64_t padded_vocab_size = 0;  // rows of the embedding table
  std::array<uint8_t, 32> sha256{};
};

/// The endless stream of training samples. Sample `ordinal` is a pure function of (manifest, seed,
/// ordinal): a source by MixSchedule; of its epoch a window of `tokens` raw tokens inside one
/// block (what a block has left over is passed over), blocks permuted, then the windows of each 64
/// blocks permuted, so that shuffling needs 64 blocks in memory; span corruption drawn with a key
/// of (seed, epoch, window in epoch, source). The position for resuming is the ordinal alone.
class Dataset {
 public:
  /// Opens the shards. Throws missing and corrupt as ShardFile; corrupt when vocabularies differ;
  /// usage for lengths or weights out of range and a source shorter than one window.
  Dataset(const std::vector<DataSource>& sources, const DatasetOptions& options);
  ~Dataset();
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  /// Samples [first_ordinal, first_ordinal + rows) into `batch`, whose buffers are reused.
  /// Thread-safe; runs on the calling thread (some 10 us a sample). Throws corrupt for a damaged
  /// block.
  void fill(uint64_t first_ordinal, int64_t rows, Batch& batch) const;

  /// Where a sample comes from.
  struct Position {
    int64_t source = 0, block = 0, window = 0;
    uint64_t epoch = 0;
  };
  Position position(uint64_t ordinal) const;

  const DataVocabulary& vocabulary() const;
  /// Names the data: vocabularies, segments, blocks with their checksums, mixture and lengths; not
  /// file names. Equal hashes and seeds give equal samples.
  Hash128 manifest() const;
  WindowLengths window() const;
  int64_t input_length() const;
  int64_t target_length() const;
  int64_t sources() const;
  /// Windows in one epoch of a source.
  uint64_t windows(int64_t source) const;
  uint64_t tokens() const;
  /// Share of samples that come from a source.
  double share(int64_t source) const;
  /// Description (JSON) in the header of the first shard: tool, sources, vocabulary file.
  const std::string& shard_description() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Held-out rows, each once and in order.
class EvalRows {
 public:
  virtual ~EvalRows() = default;
  virtual int64_t rows() const = 0;
  /// Rows [first, first + rows) into `batch`; rows beyond the last are all padding. Thread-safe.
  virtual void fill(int64_t first, int64_t rows, Batch& batch) const = 0;
  virtual int64_t input_length() const = 0;
  virtual int64_t target_length() const = 0;
};

/// Held-out text in order, each window once, corrupted by draws that depend on the window's number
/// alone: every model of one vocabulary sees the same inputs and targets. Windows run across
/// blocks; the last one may be short.
class EvalSet : public EvalRows {
 public:
  /// `max_tokens` > 0 ends after that many raw tokens (rounded up to a window). Throws as Dataset;
  /// usage when there is no token at all.
  EvalSet(const std::filesystem::path& path, const DatasetOptions& options, int64_t max_tokens = 0);
  ~EvalSet() override;

  /// Windows.
  int64_t rows() const override;
  void fill(int64_t first, int64_t rows, Batch& batch) const override;
  const DataVocabulary& vocabulary() const;
  int64_t input_length() const override;
  int64_t target_length() const override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sw
