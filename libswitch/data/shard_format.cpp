#include "libswitch/data/shard_format.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"
#include "libswitch/data/utf8.h"

namespace sw {
namespace {

constexpr std::string_view kHeaderTag = "SWTSHDR1", kBlockTag = "SWTSBLK1", kIndexTag = "SWTSIDX1",
                           kEndTag = "SWTSEND1";
constexpr uint16_t kMajor = 1;

// Appends little-endian fields.
class FrameWriter {
 public:
  template <class T>
  void put(T value) {
    static_assert(std::is_unsigned_v<T>);
    for (size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<uint8_t>(value >> (8 * i)));
  }
  void put_bytes(const void* data, size_t n) {
    const auto* p = static_cast<const uint8_t*>(data);
    bytes.insert(bytes.end(), p, p + n);
  }
  void put_tag(std::string_view tag) { put_bytes(tag.data(), tag.size()); }
  void begin(uint64_t payload) {
    put(kSkippableMagic);
    put(static_cast<uint32_t>(payload));
  }
  // Checksum of everything after the eight bytes that a skippable frame opens with.
  void put_check() { put(xxh3_32(bytes.data() + 8, bytes.size() - 8)); }

  Bytes bytes;
};

// Reads little-endian fields in order.
class FrameReader {
 public:
  FrameReader(std::span<const uint8_t> bytes, const ShardPlace& place)
      : bytes_(bytes), place_(place) {}

  template <class T>
  T get(const char* what) {
    need(sizeof(T), what);
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(T{bytes_[at_ + i]} << (8 * i));
    at_ += sizeof(T);
    return value;
  }
  template <size_t N>
  std::array<uint8_t, N> get_bytes(const char* what) {
    need(N, what);
    std::array<uint8_t, N> out;
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at_), N, out.begin());
    at_ += N;
    return out;
  }
  std::span<const uint8_t> get_span(size_t n, const char* what) {
    need(n, what);
    at_ += n;
    return bytes_.subspan(at_ - n, n);
  }
  void expect_zero(uint64_t value, const char* what) const {
    if (value != 0) fail_corrupt_shard(place_, fmt::format("{}: reserved field is not 0", what));
  }
  void begin(std::string_view tag, const char* what) {
    if (get<uint32_t>(what) != kSkippableMagic || get<uint32_t>(what) != bytes_.size() - 8 ||
        std::memcmp(get_span(tag.size(), what).data(), tag.data(), tag.size()) != 0) {
      fail_corrupt_shard(place_, fmt::format("{}: bad frame opening", what));
    }
  }
  // Compares the checksum that stands here with that of the bytes before it.
  void check(const char* what) {
    const uint32_t actual = xxh3_32(bytes_.data() + 8, at_ - 8);
    const uint32_t stored = get<uint32_t>(what);
    if (actual != stored) {
      fail_corrupt_shard(place_, fmt::format("{}: checksum is {:08x}, its bytes give {:08x}", what,
                                             stored, actual));
    }
  }
  void end(const char* what) const {
    if (at_ != bytes_.size()) fail_corrupt_shard(place_, fmt::format("{}: wrong length", what));
  }
  size_t at() const { return at_; }

 private:
  void need(size_t n, const char* what) const {
    if (n > bytes_.size() - at_) fail_corrupt_shard(place_, fmt::format("{}: too short", what));
  }
  std::span<const uint8_t> bytes_;
  const ShardPlace& place_;
  size_t at_ = 0;
};

// Bytes of the document starts in a block frame.
size_t start_bytes(const ShardBlockFrame& block) {
  size_t bytes = 0;
  uint32_t before = 0;
  for (const uint32_t start : block.doc_starts) {
    for (uint32_t delta = start - before; delta >= 0x80; delta >>= 7) ++bytes;
    ++bytes;
    before = start;
  }
  return bytes;
}

}  // namespace

void fail_corrupt_shard(const ShardPlace& place, const std::string& what) {
  const std::string block = place.block >= 0 ? fmt::format(", block {}", place.block) : "";
  fail(ErrorKind::corrupt, "{}: segment {}{}, offset {}: {}", place.file, place.segment, block,
       place.offset, what);
}

FrameKind frame_kind(std::span<const uint8_t> head, uint64_t& bytes, const ShardPlace& place) {
  if (head.size() < 8) fail_corrupt_shard(place, "the file ends inside a frame");
  uint32_t magic, size;
  std::memcpy(&magic, head.data(), 4);
  std::memcpy(&size, head.data() + 4, 4);
  bytes = 0;
  if (magic == kZstdMagic) return FrameKind::data;
  if ((magic & 0xFFFFFFF0u) != 0x184D2A50u) {
    fail_corrupt_shard(place, place.offset == 0 ? "not a token shard (.swt)"
                                                : "neither a frame nor the end of the file");
  }
  bytes = uint64_t{size} + 8;
  if (magic == kSkippableMagic && size >= 8 && head.size() >= 16) {
    const std::string_view tag(reinterpret_cast<const char*>(head.data()) + 8, 8);
    if (tag == kHeaderTag) return FrameKind::header;
    if (tag == kBlockTag) return FrameKind::block;
    if (tag == kIndexTag) return FrameKind::index;
  }
  if (size > kMaxForeignFrameBytes) {
    fail_corrupt_shard(place, fmt::format("unknown frame of {} bytes, at most {} are passed over",
                                          size, kMaxForeignFrameBytes));
  }
  return FrameKind::foreign;
}

Bytes serialize(const ShardHeader& header) {
  FrameWriter out;
  out.begin(116 + header.json.size());
  out.put_tag(kHeaderTag);
  out.put(kMajor);
  out.put(header.minor);
  out.put(header.flags);
  out.put(static_cast<uint8_t>(header.token_bytes));
  out.put(static_cast<uint8_t>(header.content));
  out.put(uint16_t{0});
  out.put(header.vocab_size);
  out.put_bytes(header.vocab_sha256.data(), 32);
  out.put_bytes(header.segment_id.data(), 16);
  out.put(header.block_tokens_max);
  for (const uint32_t id : {header.pad, header.eos, header.unk, header.bos}) out.put(id);
  out.put(static_cast<uint32_t>(header.json.size()));
  out.put(uint64_t{0});
  out.put(uint64_t{0});
  out.put_tag(header.json);
  out.put_check();
  return std::move(out.bytes);
}

ShardHeader parse_header(std::span<const uint8_t> frame, const ShardPlace& place) {
  constexpr const char* kWhat = "header";
  FrameReader in(frame, place);
  in.begin(kHeaderTag, kWhat);
  ShardHeader header;
  const auto major = in.get<uint16_t>(kWhat);
  header.minor = in.get<uint16_t>(kWhat);
  header.flags = in.get<uint32_t>(kWhat);
  header.token_bytes = in.get<uint8_t>(kWhat);
  header.content = in.get<uint8_t>(kWhat);
  const auto reserved = in.get<uint16_t>(kWhat);
  header.vocab_size = in.get<uint32_t>(kWhat);
  header.vocab_sha256 = in.get_bytes<32>(kWhat);
  header.segment_id = in.get_bytes<16>(kWhat);
  header.block_tokens_max = in.get<uint32_t>(kWhat);
  header.pad = in.get<uint32_t>(kWhat);
  header.eos = in.get<uint32_t>(kWhat);
  header.unk = in.get<uint32_t>(kWhat);
  header.bos = in.get<uint32_t>(kWhat);
  const auto json_bytes = in.get<uint32_t>(kWhat);
  const uint64_t more_reserved = in.get<uint64_t>(kWhat) | in.get<uint64_t>(kWhat);
  const auto json = in.get_span(std::min<size_t>(json_bytes, frame.size()), kWhat);
  in.check(kWhat);
  in.end(kWhat);
  header.json.assign(reinterpret_cast<const char*>(json.data()), json.size());

  const auto refuse = [&](const std::string& what) {
    fail_corrupt_shard(place, "header: " + what);
  };
  if (major != kMajor) {
    refuse(
        fmt::format("format version {}.{}; this program reads {}.x", major, header.minor, kMajor));
  }
  in.expect_zero(reserved | more_reserved, kWhat);
  if ((header.flags & ~uint32_t{3}) != 0) refuse(fmt::format("unknown flags {:#x}", header.flags));
  if (header.token_bytes != 2 && header.token_bytes != 4) {
    refuse(fmt::format("{} bytes per token, expected 2 or 4", header.token_bytes));
  }
  if (header.content > 1) refuse(fmt::format("unknown content {}", header.content));
  if (header.vocab_size == 0 || header.vocab_size > 0x7FFFFFFFu ||
      (header.token_bytes == 2 && header.vocab_size > 65536)) {
    refuse(fmt::format("vocabulary size {} does not fit", header.vocab_size));
  }
  if (header.block_tokens_max == 0 ||
      int64_t{header.block_tokens_max} * header.token_bytes > kMaxRawBlockBytes) {
    refuse(fmt::format("blocks of {} tokens exceed 64 MiB", header.block_tokens_max));
  }
  for (const uint32_t id : {header.pad, header.eos, header.unk, header.bos}) {
    if (id != kNoToken && id >= header.vocab_size) refuse("a special token is no token");
  }
  if (json_bytes > kMaxHeaderJson) refuse("description over 65,536 bytes");
  if (find_invalid_utf8(header.json) >= 0) refuse("description is not UTF-8");
  return header;
}

Bytes serialize(const ShardBlockFrame& block) {
  FrameWriter starts;
  uint32_t before = 0;
  for (const uint32_t start : block.doc_starts) {
    uint32_t delta = start - before;
    before = start;
    for (; delta >= 0x80; delta >>= 7) starts.put(static_cast<uint8_t>(delta | 0x80));
    starts.put(static_cast<uint8_t>(delta));
  }
  FrameWriter out;
  out.begin(52 + starts.bytes.size());
  out.put_tag(kBlockTag);
  out.put(block.ordinal);
  out.put(block.n_tokens);
  out.put(static_cast<uint32_t>(block.doc_starts.size()));
  out.put(block.comp_bytes);
  out.put(block.comp_check);
  out.put(block.raw_check);
  out.put(static_cast<uint32_t>(starts.bytes.size()));
  out.put(static_cast<uint8_t>(block.continues));
  for (int i = 0; i < 3; ++i) out.put(uint8_t{0});
  out.put(uint32_t{0});
  out.put_bytes(starts.bytes.data(), starts.bytes.size());
  out.put_check();
  return std::move(out.bytes);
}

ShardBlockFrame parse_block(std::span<const uint8_t> frame, const ShardHeader& header,
                            const ShardPlace& place) {
  constexpr const char* kWhat = "block header";
  FrameReader in(frame, place);
  in.begin(kBlockTag, kWhat);
  ShardBlockFrame block;
  block.ordinal = in.get<uint64_t>(kWhat);
  block.n_tokens = in.get<uint32_t>(kWhat);
  block.n_doc_starts = in.get<uint32_t>(kWhat);
  block.comp_bytes = in.get<uint32_t>(kWhat);
  block.comp_check = in.get<uint32_t>(kWhat);
  block.raw_check = in.get<uint32_t>(kWhat);
  const auto starts_bytes = in.get<uint32_t>(kWhat);
  const auto flags = in.get<uint8_t>(kWhat);
  const auto reserved = in.get_bytes<3>(kWhat);
  const auto more_reserved = in.get<uint32_t>(kWhat);
  const auto starts = in.get_span(std::min<size_t>(starts_bytes, frame.size()), kWhat);
  in.check(kWhat);
  in.end(kWhat);

  const auto refuse = [&](const std::string& what) {
    fail_corrupt_shard(place, "block header: " + what);
  };
  in.expect_zero(uint64_t{reserved[0]} | reserved[1] | reserved[2] | more_reserved, kWhat);
  if (flags > 1) refuse(fmt::format("unknown flags {:#x}", flags));
  block.continues = flags != 0;
  if (block.n_tokens == 0 || block.n_tokens > header.block_tokens_max) {
    refuse(fmt::format("{} tokens, expected 1 to {}", block.n_tokens, header.block_tokens_max));
  }
  const size_t raw_bytes = size_t{block.n_tokens} * static_cast<size_t>(header.token_bytes);
  if (block.comp_bytes == 0 || block.comp_bytes > ZSTD_compressBound(raw_bytes)) {
    refuse(fmt::format("{} compressed bytes for {} tokens", block.comp_bytes, block.n_tokens));
  }
  if (block.n_doc_starts > block.n_tokens) refuse("more documents than tokens");
  // Each start takes a byte or more. Tokens and starts together are what a reader has to hold.
  if (block.n_doc_starts > starts.size()) refuse("malformed document starts");
  if (raw_bytes + size_t{4} * block.n_doc_starts > static_cast<size_t>(kMaxRawBlockBytes)) {
    refuse("tokens and document starts exceed 64 MiB");
  }
  block.doc_starts.reserve(block.n_doc_starts);
  size_t at = 0;
  uint64_t start = 0;
  for (uint32_t i = 0; i < block.n_doc_starts; ++i) {
    uint64_t delta = 0;
    for (int shift = 0;; shift += 7) {
      if (shift > 28 || at == starts.size()) refuse("malformed document starts");
      const uint8_t byte = starts[at++];
      delta |= uint64_t{byte & 0x7Fu} << shift;
      if (byte == 0 && shift > 0) refuse("document starts not in their shortest form");
      if (byte < 0x80) break;
    }
    start += delta;
    if ((i > 0 && delta == 0) || start >= block.n_tokens) refuse("document starts out of order");
    block.doc_starts.push_back(static_cast<uint32_t>(start));
  }
  if (at != starts.size()) refuse("malformed document starts");
  return block;
}

Bytes serialize(const ShardIndex& index) {
  FrameWriter out;
  out.begin(8 + kIndexRowBytes * index.rows.size() + kIndexTrailerBytes);
  out.put_tag(kIndexTag);
  for (const ShardIndexRow& row : index.rows) {
    out.put(row.offset);
    for (const uint32_t value : {row.frame_bytes, row.comp_bytes, row.n_tokens, row.n_doc_starts,
                                 row.raw_check, row.comp_check}) {
      out.put(value);
    }
  }
  out.put(index.tokens);
  out.put(index.documents);
  out.put(static_cast<uint32_t>(index.rows.size()));
  out.put(uint32_t{0});
  out.put(index.segment_bytes);
  out.put_bytes(index.segment_id.data(), 16);
  out.put(uint32_t{0});
  out.put_check();
  out.put_tag(kEndTag);
  return std::move(out.bytes);
}

ShardIndex parse_index(std::span<const uint8_t> frame, const ShardPlace& place) {
  constexpr const char* kWhat = "index";
  FrameReader in(frame, place);
  in.begin(kIndexTag, kWhat);
  const auto refuse = [&](const std::string& what) { fail_corrupt_shard(place, "index: " + what); };
  const size_t fixed = kIndexFrameBytes;
  if (frame.size() < fixed || (frame.size() - fixed) % kIndexRowBytes != 0) refuse("wrong length");
  ShardIndex index;
  index.rows.resize((frame.size() - fixed) / kIndexRowBytes);
  for (ShardIndexRow& row : index.rows) {
    row.offset = in.get<uint64_t>(kWhat);
    for (uint32_t* value : {&row.frame_bytes, &row.comp_bytes, &row.n_tokens, &row.n_doc_starts,
                            &row.raw_check, &row.comp_check}) {
      *value = in.get<uint32_t>(kWhat);
    }
  }
  index.tokens = in.get<uint64_t>(kWhat);
  index.documents = in.get<uint64_t>(kWhat);
  const auto count = in.get<uint32_t>(kWhat);
  const auto reserved = in.get<uint32_t>(kWhat);
  index.segment_bytes = in.get<uint64_t>(kWhat);
  index.segment_id = in.get_bytes<16>(kWhat);
  const auto more_reserved = in.get<uint32_t>(kWhat);
  in.check(kWhat);
  if (std::memcmp(in.get_span(8, kWhat).data(), kEndTag.data(), 8) != 0) refuse("bad end mark");
  in.end(kWhat);
  in.expect_zero(reserved | more_reserved, kWhat);
  if (count != index.rows.size()) refuse("row count does not fit its length");
  uint64_t tokens = 0, documents = 0, end = kHeaderFrameBytes;
  for (const ShardIndexRow& row : index.rows) {
    if (row.offset < end || row.offset > index.segment_bytes) refuse("rows out of order");
    end = row.offset + row.frame_bytes + row.comp_bytes;
    tokens += row.n_tokens, documents += row.n_doc_starts;
  }
  if (index.segment_bytes < frame.size() || end > index.segment_bytes - frame.size()) {
    refuse("rows reach over the end");
  }
  if (tokens != index.tokens || documents != index.documents) refuse("totals differ from rows");
  return index;
}

void TokenBlock::copy(int64_t begin, int64_t count, int32_t* out) const {
  if (token_bytes == 2) {
    const uint8_t* from = raw.data() + 2 * begin;
    for (int64_t i = 0; i < count; ++i) {
      uint16_t token;
      std::memcpy(&token, from + 2 * i, 2);
      out[i] = token;
    }
  } else {
    std::memcpy(out, raw.data() + 4 * begin, static_cast<size_t>(4 * count));
  }
}

TokenBlock decode_block(ShardBlockFrame block, std::span<const uint8_t> data,
                        const ShardHeader& header, const ShardPlace& place) {
  const auto refuse = [&](const std::string& what) { fail_corrupt_shard(place, "data: " + what); };
  if (data.size() != block.comp_bytes) refuse("wrong length");
  if (const uint32_t check = xxh3_32(data.data(), data.size()); check != block.comp_check) {
    refuse(fmt::format("checksum of the compressed bytes is {:08x}, they give {:08x}",
                       block.comp_check, check));
  }
  TokenBlock out;
  out.token_bytes = header.token_bytes;
  out.continues = block.continues;
  out.doc_starts = std::move(block.doc_starts);
  const size_t raw_bytes = size_t{block.n_tokens} * static_cast<size_t>(header.token_bytes);
  if (ZSTD_findFrameCompressedSize(data.data(), data.size()) != data.size() ||
      ZSTD_getFrameContentSize(data.data(), data.size()) != raw_bytes ||
      ZSTD_getDictID_fromFrame(data.data(), data.size()) != 0) {
    refuse("not one zstd frame of the announced size");
  }
  // The buffer has the size that the block header announced; zstd never writes beyond it.
  out.raw.resize(raw_bytes);
  static thread_local const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(
      ZSTD_createDCtx(), ZSTD_freeDCtx);
  const size_t n =
      ZSTD_decompressDCtx(context.get(), out.raw.data(), raw_bytes, data.data(), data.size());
  if (ZSTD_isError(n)) refuse(ZSTD_getErrorName(n));
  if (n != raw_bytes) refuse("decompresses to another size");
  if (xxh3_32(out.raw.data(), raw_bytes) != block.raw_check) refuse("checksum of tokens differs");
  uint32_t largest = 0;
  for (size_t i = 0; i < block.n_tokens; ++i) {
    uint32_t token = 0;
    std::memcpy(&token, out.raw.data() + i * static_cast<size_t>(out.token_bytes),
                static_cast<size_t>(out.token_bytes));
    largest = std::max(largest, token);
  }
  if (largest >= header.vocab_size) {
    refuse(fmt::format("token {} in a vocabulary of {}", largest, header.vocab_size));
  }
  return out;
}

Bytes encode_block_data(std::span<const uint8_t> raw, int level, ShardBlockFrame& block) {
  static thread_local const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(
      ZSTD_createCCtx(), ZSTD_freeCCtx);
  ZSTD_CCtx_reset(context.get(), ZSTD_reset_session_and_parameters);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_contentSizeFlag, 1);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, 0);
  Bytes out(ZSTD_compressBound(raw.size()));
  const size_t n = ZSTD_compress2(context.get(), out.data(), out.size(), raw.data(), raw.size());
  SW_CHECK(!ZSTD_isError(n), internal, "zstd: {}", ZSTD_getErrorName(n));
  out.resize(n);
  block.comp_bytes = static_cast<uint32_t>(n);
  block.comp_check = xxh3_32(out.data(), n);
  block.raw_check = xxh3_32(raw.data(), raw.size());
  return out;
}

ShardIndexRow index_row(const ShardBlockFrame& block, uint64_t offset) {
  ShardIndexRow row;
  row.offset = offset;
  row.frame_bytes = static_cast<uint32_t>(kBlockFrameBytes + start_bytes(block));
  row.comp_bytes = block.comp_bytes;
  row.n_tokens = block.n_tokens;
  row.n_doc_starts = static_cast<uint32_t>(block.doc_starts.size());
  row.raw_check = block.raw_check;
  row.comp_check = block.comp_check;
  return row;
}

void check_same_kind(const ShardHeader& first, const ShardHeader& other, const ShardPlace& place) {
  if (first.vocab_sha256 != other.vocab_sha256 || first.vocab_size != other.vocab_size) {
    fail_corrupt_shard(
        place,
        fmt::format("tokens of vocabulary {}..., those before are of {}...; encode "
                    "all text with one vocabulary",
                    to_hex(other.vocab_sha256.data(), 6), to_hex(first.vocab_sha256.data(), 6)));
  }
  if (first.token_bytes != other.token_bytes || first.content != other.content ||
      first.flags != other.flags || first.eos != other.eos || first.pad != other.pad) {
    fail_corrupt_shard(place, "segments of different kinds cannot stand in one file");
  }
}

}  // namespace sw
