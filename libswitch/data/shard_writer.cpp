#include "libswitch/data/shard_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"

namespace sw {

ShardHeader shard_header(const Tokenizer& tokenizer, const std::string& description,
                         const std::string& vocab_path) {
  ShardHeader header;
  header.vocab_size = static_cast<uint32_t>(tokenizer.vocab_size());
  header.token_bytes = tokenizer.vocab_size() <= 65536 ? 2 : 4;
  header.vocab_sha256 = tokenizer.sha256();
  auto json = nlohmann::ordered_json::parse(description);
  if (!vocab_path.empty()) json["vocab"] = vocab_path;
  header.json = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  SW_CHECK(static_cast<int64_t>(header.json.size()) <= kMaxHeaderJson, internal,
           "shard description of {} bytes, at most {}", header.json.size(), kMaxHeaderJson);
  std::string key(reinterpret_cast<const char*>(header.vocab_sha256.data()), 32);
  key += description;
  const auto hash = sha256(key.data(), key.size());
  std::copy_n(hash.begin(), 16, header.segment_id.begin());
  return header;
}

ShardWriter::ShardWriter(Sink sink, ShardHeader header, int threads, int level)
    : sink_(std::move(sink)),
      header_(std::move(header)),
      threads_(static_cast<size_t>(std::max(threads, 1))),
      level_(level) {
  put(serialize(header_));
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::put(const Bytes& bytes) {
  sink_(bytes.data(), bytes.size());
  written_ += bytes.size();
}

void ShardWriter::append(std::span<const int32_t> document) {
  if (document.empty()) return;
  ++documents_;
  tokens_ += document.size();
  doc_starts_.push_back(block_tokens_);
  const auto width = static_cast<size_t>(header_.token_bytes);
  while (!document.empty()) {
    const size_t n = std::min<size_t>(document.size(), header_.block_tokens_max - block_tokens_);
    const size_t old = raw_.size();
    raw_.resize(old + n * width);
    uint8_t* out = raw_.data() + old;
    for (size_t i = 0; i < n; ++i) {
      const auto token = static_cast<uint32_t>(document[i]);
      SW_CHECK(token < header_.vocab_size, internal, "token {} in a vocabulary of {}", document[i],
               header_.vocab_size);
      for (size_t b = 0; b < width; ++b)
        out[i * width + b] = static_cast<uint8_t>(token >> (8 * b));
    }
    block_tokens_ += static_cast<uint32_t>(n);
    document = document.subspan(n);
    if (block_tokens_ == header_.block_tokens_max) {
      close_block();
      continues_ = !document.empty();
    }
  }
}

void ShardWriter::close_block() {
  if (block_tokens_ == 0) return;
  ShardBlockFrame block;
  block.ordinal = next_ordinal_++;
  block.n_tokens = std::exchange(block_tokens_, 0);
  block.n_doc_starts = static_cast<uint32_t>(doc_starts_.size());
  block.doc_starts = std::exchange(doc_starts_, {});
  block.continues = std::exchange(continues_, false);
  auto compress = [block = std::move(block), raw = std::exchange(raw_, {}), level = level_]() {
    Compressed out{block, {}};
    out.data = encode_block_data(raw, level, out.block);
    return out;
  };
  pending_.push_back(
      std::async(threads_ > 1 ? std::launch::async : std::launch::deferred, std::move(compress)));
  while (pending_.size() >= threads_) write_oldest();
}

void ShardWriter::write_oldest() {
  const Compressed oldest = pending_.front().get();
  pending_.pop_front();
  const Bytes frame = serialize(oldest.block);
  index_.rows.push_back(index_row(oldest.block, written_));
  put(frame);
  put(oldest.data);
}

void ShardWriter::finish() {
  close_block();
  while (!pending_.empty()) write_oldest();
  index_.tokens = tokens_;
  index_.documents = documents_;
  index_.segment_id = header_.segment_id;
  index_.segment_bytes =
      written_ + static_cast<uint64_t>(kIndexFrameBytes +
                                       kIndexRowBytes * static_cast<int64_t>(index_.rows.size()));
  put(serialize(index_));
}

}  // namespace sw
