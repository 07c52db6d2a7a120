// The bytes of a token shard (.swt), as swt(5) describes them: frames and their fields, without
// input or output.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

using Bytes = std::vector<uint8_t>;

constexpr uint32_t kSkippableMagic = 0x184D2A5Bu;
constexpr uint32_t kZstdMagic = 0xFD2FB528u;
constexpr uint32_t kNoToken = 0xFFFFFFFFu;
constexpr int64_t kMaxRawBlockBytes = int64_t{64} << 20;
constexpr int64_t kMaxForeignFrameBytes = int64_t{1} << 20;
constexpr int64_t kMaxHeaderJson = 65536;
constexpr int64_t kHeaderFrameBytes = 124;  // without JSON
constexpr int64_t kBlockFrameBytes = 60;    // without document starts
constexpr int64_t kIndexFrameBytes = 80;    // without rows
constexpr int64_t kIndexRowBytes = 32;
constexpr int64_t kIndexTrailerBytes = 64;

/// Where a reader is, for messages: "file: segment 0, block 3, offset 4711: ...".
struct ShardPlace {
  std::string file;
  int64_t segment = 0;
  int64_t block = -1;   // -1: not in a block
  uint64_t offset = 0;  // from the start of the file
};
/// Throws corrupt with the place in front of `what`.
[[noreturn]] void fail_corrupt_shard(const ShardPlace& place, const std::string& what);

/// First frame of a segment.
struct ShardHeader {
  enum Flags : uint32_t { kEosStored = 1, kShuffled = 2 };
  uint16_t minor = 0;
  uint32_t flags = 0;
  int token_bytes = 2;  // 2 or 4
  int content = 0;      // 0 language-model stream, 1 pairs (even document input, odd target)
  uint32_t vocab_size = 0;
  std::array<uint8_t, 32> vocab_sha256{};
  std::array<uint8_t, 16> segment_id{};
  uint32_t block_tokens_max = 262144;
  uint32_t pad = 0, eos = 1, unk = 2, bos = kNoToken;
  std::string json;
};

/// Announces one block; the DATA frame of `comp_bytes` follows it directly.
struct ShardBlockFrame {
  uint64_t ordinal = 0;  // in the segment
  uint32_t n_tokens = 0, n_doc_starts = 0;
  uint32_t comp_bytes = 0, comp_check = 0, raw_check = 0;
  bool continues = false;            // the first token belongs to the document before
  std::vector<uint32_t> doc_starts;  // strictly increasing, below n_tokens
};

struct ShardIndexRow {
  uint64_t offset = 0;  // of the block frame, from the start of the segment
  uint32_t frame_bytes = 0, comp_bytes = 0, n_tokens = 0, n_doc_starts = 0;
  uint32_t raw_check = 0, comp_check = 0;
  bool operator==(const ShardIndexRow&) const = default;
};

/// Last frame of a segment.
struct ShardIndex {
  std::vector<ShardIndexRow> rows;
  uint64_t tokens = 0, documents = 0, segment_bytes = 0;
  std::array<uint8_t, 16> segment_id{};
};

enum class FrameKind { header, block, index, data, foreign };

/// What a frame is, from its first 16 bytes (fewer at the end of a file). `bytes` receives the
/// whole frame's size, 0 for data. Throws corrupt for anything that no shard may hold.
FrameKind frame_kind(std::span<const uint8_t> head, uint64_t& bytes, const ShardPlace& place);

/// Whole frames to bytes and back. Parsing throws corrupt for any deviation from the format.
Bytes serialize(const ShardHeader& header);
Bytes serialize(const ShardBlockFrame& block);
Bytes serialize(const ShardIndex& index);
ShardHeader parse_header(std::span<const uint8_t> frame, const ShardPlace& place);
ShardBlockFrame parse_block(std::span<const uint8_t> frame, const ShardHeader& header,
                            const ShardPlace& place);
ShardIndex parse_index(std::span<const uint8_t> frame, const ShardPlace& place);

/// Tokens of one block, as stored: little-endian, 2 or 4 bytes each.
class TokenBlock {
 public:
  int64_t size() const { return static_cast<int64_t>(raw.size()) / token_bytes; }
  /// Copies tokens [begin, begin + count) to `out`.
  void copy(int64_t begin, int64_t count, int32_t* out) const;

  Bytes raw;
  int token_bytes = 2;
  bool continues = false;
  std::vector<uint32_t> doc_starts;
};

/// DATA frame of a block that `parse_block` announced: checks, decompresses, checks again, and
/// checks every token against the vocabulary. The document starts move into the result.
TokenBlock decode_block(ShardBlockFrame block, std::span<const uint8_t> data,
                        const ShardHeader& header, const ShardPlace& place);

/// Compresses `raw` and fills the sizes and checksums of `block`.
Bytes encode_block_data(std::span<const uint8_t> raw, int level, ShardBlockFrame& block);

/// The row of the index that describes `block`.
ShardIndexRow index_row(const ShardBlockFrame& block, uint64_t offset);

/// Throws corrupt unless segments of one file may stand together: same vocabulary, token width,
/// content and flags.
void check_same_kind(const ShardHeader& first, const ShardHeader& other, const ShardPlace& place);

}  // namespace sw
