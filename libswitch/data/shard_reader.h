// Reads token shards: at random through the index, or forward from a pipe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/base/file.h"
#include "libswitch/data/shard_format.h"

namespace sw {

/// Random access to the blocks of one file, of all its segments in order. Opening reads the last
/// bytes, the indices and the headers only.
class ShardFile {
 public:
  /// Throws missing; corrupt naming file, segment and offset when the indices do not lead back to
  /// the start of the file or segments of different kinds stand together.
  explicit ShardFile(const std::filesystem::path& path);

  const std::string& name() const { return name_; }
  /// Of the first segment; all agree in vocabulary, token width, content and flags.
  const ShardHeader& header() const { return segments_.front().header; }
  int64_t blocks() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t block_tokens(int64_t block) const {
    return blocks_[static_cast<size_t>(block)].row.n_tokens;
  }
  uint64_t tokens() const { return tokens_; }
  uint64_t documents() const { return documents_; }
  uint64_t bytes() const { return bytes_; }
  int64_t segments() const { return static_cast<int64_t>(segments_.size()); }
  const ShardHeader& segment_header(int64_t s) const {
    return segments_[static_cast<size_t>(s)].header;
  }
  /// Index row of a block, its offset from the start of the file.
  const ShardIndexRow& row(int64_t block) const { return blocks_[static_cast<size_t>(block)].row; }
  int64_t segment_of(int64_t block) const { return blocks_[static_cast<size_t>(block)].segment; }

  /// Reads, checks and decompresses one block. Throws corrupt naming file, block and offset.
  /// Thread-safe.
  TokenBlock read_block(int64_t block) const;

 private:
  struct Segment {
    ShardHeader header;
    uint64_t start = 0;
    int64_t first_block = 0;
  };
  struct Block {
    ShardIndexRow row;  // offset from the start of the file
    int64_t segment = 0;
  };

  std::string name_;
  FileDescriptor fd_;
  std::vector<Segment> segments_;
  std::vector<Block> blocks_;
  uint64_t tokens_ = 0, documents_ = 0, bytes_ = 0;
};

/// Reads the blocks of a shard in order from a descriptor that need not be seekable, and checks
/// every byte on the way, the index included.
class ShardStream {
 public:
  using Copy = std::function<void(const void* data, size_t bytes)>;

  /// Reads from `fd`, which stays the caller's, up to the first header. `copy` receives every byte
  /// read, once the frame that holds it was checked.
  ShardStream(int fd, std::string name, Copy copy = {});
  ~ShardStream();

  /// Of the first segment.
  const ShardHeader& header() const;
  /// The next block; false at the end of the stream, when the last segment was whole. Throws
  /// corrupt naming stream, segment, block and offset.
  bool next(TokenBlock& block);

  uint64_t tokens() const;
  uint64_t documents() const;
  int64_t blocks() const;
  int64_t segments() const;
  uint64_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Documents of a stream, joined over blocks.
class DocumentReader {
 public:
  explicit DocumentReader(ShardStream& stream) : stream_(stream) {}
  /// Tokens of the next document; false after the last.
  bool next(std::vector<int32_t>& tokens);

 private:
  ShardStream& stream_;
  TokenBlock block_;
  int64_t at_ = 0;         // next token of block_
  size_t next_start_ = 0;  // next entry of block_.doc_starts
  bool open_ = false;      // block_ holds something
};

/// Throws corrupt unless the shard was encoded with the vocabulary of this SHA-256.
void check_vocabulary(const ShardHeader& header, const std::array<uint8_t, 32>& vocab_sha256,
                      const std::string& shard_name, const std::string& vocabulary_name);

}  // namespace sw
