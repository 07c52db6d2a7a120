// Writes one segment of a token shard.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <span>
#include <string>
#include <vector>

#include "libswitch/data/shard_format.h"
#include "libswitch/data/tokenizer.h"

namespace sw {

/// Header for tokens of `tokenizer`. `description` (a JSON object: tool, sources, options) and the
/// vocabulary make the segment's id, so that the same work gives the same bytes. `vocab_path`,
/// where the vocabulary's file lies, is noted beside it and not part of the id.
ShardHeader shard_header(const Tokenizer& tokenizer, const std::string& description,
                         const std::string& vocab_path = "");

/// Gathers documents into blocks, compresses them and hands the frames on, in order. Output does
/// not depend on the number of threads.
class ShardWriter {
 public:
  using Sink = std::function<void(const void* data, size_t bytes)>;

  /// `threads` > 1 compresses that many blocks at a time beside the caller.
  ShardWriter(Sink sink, ShardHeader header, int threads = 1, int level = 3);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  /// Appends one document; one without tokens is dropped. Every token must be below the header's
  /// vocabulary size (internal otherwise).
  void append(std::span<const int32_t> document);
  /// Writes what is left and the index. Nothing may be appended after it.
  void finish();

  uint64_t tokens() const { return tokens_; }
  uint64_t documents() const { return documents_; }

 private:
  struct Compressed {
    ShardBlockFrame block;
    Bytes data;
  };
  void close_block();
  void write_oldest();
  void put(const Bytes& bytes);

  Sink sink_;
  ShardHeader header_;
  size_t threads_;
  int level_;
  Bytes raw_;                         // tokens of the open block
  std::vector<uint32_t> doc_starts_;  // of the open block
  bool continues_ = false;            // of the open block
  uint32_t block_tokens_ = 0;
  uint64_t next_ordinal_ = 0;
  std::deque<std::future<Compressed>> pending_;
  ShardIndex index_;
  uint64_t written_ = 0, tokens_ = 0, documents_ = 0;
};

}  // namespace sw
