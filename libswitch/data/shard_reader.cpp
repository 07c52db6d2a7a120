#include "libswitch/data/shard_reader.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"

namespace sw {
namespace {

Bytes pread_bytes(int fd, uint64_t offset, uint64_t bytes, const std::string& name) {
  Bytes out(bytes);
  pread_all(fd, out.data(), bytes, offset, name);
  return out;
}

}  // namespace

ShardFile::ShardFile(const std::filesystem::path& path)
    : name_(path.string()), fd_(open_for_read(path)) {
  struct stat info {};
  SW_CHECK(::fstat(fd_.get(), &info) == 0, io, "{}: {}", name_, std::strerror(errno));
  SW_CHECK(S_ISREG(info.st_mode), usage, "{}: expected a regular file; pipe it in as '-'", name_);
  bytes_ = static_cast<uint64_t>(info.st_size);
  ShardPlace place{name_, 0, -1, 0};
  if (bytes_ == 0) fail_corrupt_shard(place, "empty file, expected a token shard (.swt)");
  {
    const Bytes head = pread_bytes(fd_.get(), 0, std::min<uint64_t>(bytes_, 16), name_);
    uint64_t frame_bytes;
    const FrameKind kind = frame_kind(head, frame_bytes, place);
    if (kind == FrameKind::data) {
      fail_corrupt_shard(place,
                         "a zstd file without the frames of a shard; recompressing a shard loses "
                         "them, keep the .swt itself");
    }
    if (kind != FrameKind::header) fail_corrupt_shard(place, "not a token shard (.swt)");
  }

  // From the last segment to the first: each index says how long its segment is.
  struct Found {
    uint64_t start;
    ShardIndex index;
    uint64_t index_start;
  };
  std::vector<Found> found;
  uint64_t end = bytes_;
  while (end > 0) {
    place.offset = end;
    const auto no_index = [&] {
      fail_corrupt_shard(place, end == bytes_
                                    ? "no index at the end of the file: it was cut or is still "
                                      "being written; sw-tokenize --repair keeps what is whole"
                                    : "no index at the end of a segment");
    };
    if (end < static_cast<uint64_t>(kHeaderFrameBytes + kIndexFrameBytes)) no_index();
    const Bytes trailer =
        pread_bytes(fd_.get(), end - kIndexTrailerBytes, kIndexTrailerBytes, name_);
    if (std::memcmp(trailer.data() + 56, "SWTSEND1", 8) != 0) no_index();
    uint32_t rows;
    uint64_t segment_bytes;
    std::memcpy(&rows, trailer.data() + 16, 4);
    std::memcpy(&segment_bytes, trailer.data() + 24, 8);
    const uint64_t index_bytes = uint64_t{kIndexFrameBytes} + uint64_t{rows} * kIndexRowBytes;
    if (segment_bytes > end || index_bytes + kHeaderFrameBytes > segment_bytes) no_index();
    place.offset = end - index_bytes;
    Found f{end - segment_bytes, {}, end - index_bytes};
    f.index = parse_index(pread_bytes(fd_.get(), f.index_start, index_bytes, name_), place);
    if (f.index.segment_bytes != segment_bytes || f.index.rows.size() != rows) no_index();
    end = f.start;
    found.push_back(std::move(f));
  }
  std::reverse(found.begin(), found.end());

  for (const Found& f : found) {
    place.segment = segments();
    place.offset = f.start;
    const uint64_t room = f.index_start - f.start;
    const Bytes head = pread_bytes(fd_.get(), f.start, 16, name_);
    uint64_t header_bytes;
    if (frame_kind(head, header_bytes, place) != FrameKind::header ||
        header_bytes > static_cast<uint64_t>(kHeaderFrameBytes + kMaxHeaderJson) ||
        header_bytes > room) {
      fail_corrupt_shard(place, "a segment does not open with its header");
    }
    Segment segment;
    segment.start = f.start;
    segment.first_block = blocks();
    segment.header = parse_header(pread_bytes(fd_.get(), f.start, header_bytes, name_), place);
    if (segment.header.segment_id != f.index.segment_id) {
      fail_corrupt_shard(place, "header and index belong to different segments");
    }
    if (!segments_.empty()) check_same_kind(segments_.front().header, segment.header, place);
    for (ShardIndexRow row : f.index.rows) {
      if (row.offset < header_bytes) fail_corrupt_shard(place, "index: a row inside the header");
      if (row.n_tokens == 0 || row.n_tokens > segment.header.block_tokens_max) {
        fail_corrupt_shard(place, "index: a block of impossible size");
      }
      row.offset += f.start;
      blocks_.push_back({row, segments()});
    }
    tokens_ += f.index.tokens, documents_ += f.index.documents;
    segments_.push_back(std::move(segment));
  }
}

TokenBlock ShardFile::read_block(int64_t block) const {
  SW_CHECK(block >= 0 && block < blocks(), internal, "{}: block {} of {}", name_, block, blocks());
  const Block& entry = blocks_[static_cast<size_t>(block)];
  const ShardIndexRow& row = entry.row;
  const Segment& segment = segments_[static_cast<size_t>(entry.segment)];
  const int64_t ordinal = block - segment.first_block;
  ShardPlace place{name_, entry.segment, ordinal, row.offset};
  const Bytes bytes =
      pread_bytes(fd_.get(), row.offset, uint64_t{row.frame_bytes} + row.comp_bytes, name_);
  const std::span<const uint8_t> all(bytes);
  ShardBlockFrame frame = parse_block(all.first(row.frame_bytes), segment.header, place);
  if (frame.ordinal != static_cast<uint64_t>(ordinal) || !(index_row(frame, row.offset) == row)) {
    fail_corrupt_shard(place, "block header differs from the index");
  }
  place.offset += row.frame_bytes;
  return decode_block(std::move(frame), all.subspan(row.frame_bytes), segment.header, place);
}

struct ShardStream::State {
  int fd = -1;
  Copy copy;
  ShardPlace place;  // offset: of the frame being read
  ShardHeader first, header;
  bool in_segment = false;
  uint64_t segment_start = 0, offset = 0;
  ShardIndex seen;
  uint64_t tokens = 0, documents = 0;
  int64_t blocks = 0, segments = 0;
  std::vector<uint8_t> buffer = Bytes(size_t{1} << 18);
  size_t begin = 0, end = 0;

  // Appends up to `bytes` bytes to `out`; fewer only at the end of the stream. What a frame claims
  // of its size is not allocated before it arrives.
  void read(Bytes& out, uint64_t bytes) {
    while (bytes > 0) {
      if (begin == end) {
        ssize_t n;
        do {
          n = ::read(fd, buffer.data(), buffer.size());
        } while (n < 0 && errno == EINTR);
        if (n < 0) fail(ErrorKind::io, "{}: read failed: {}", place.file, std::strerror(errno));
        if (n == 0) return;
        begin = 0, end = static_cast<size_t>(n);
      }
      const size_t n = std::min<uint64_t>(bytes, end - begin);
      out.insert(out.end(), buffer.begin() + static_cast<std::ptrdiff_t>(begin),
                 buffer.begin() + static_cast<std::ptrdiff_t>(begin + n));
      begin += n, bytes -= n, offset += n;
    }
  }
  // The opening of the next frame, at most 16 bytes of it; empty at the end of the stream.
  Bytes read_opening() {
    Bytes frame;
    read(frame, 8);
    uint32_t magic = 0, size = 0;
    if (frame.size() == 8) {
      std::memcpy(&magic, frame.data(), 4);
      std::memcpy(&size, frame.data() + 4, 4);
    }
    if ((magic & 0xFFFFFFF0u) == 0x184D2A50u) read(frame, std::min<uint32_t>(size, 8));
    return frame;
  }
  void read_rest(Bytes& frame, uint64_t bytes) {
    read(frame, bytes - frame.size());
    if (frame.size() != bytes) cut();
  }
  [[noreturn]] void cut() {
    fail_corrupt_shard(place, fmt::format("the stream ends at byte {}, inside a segment; "
                                          "sw-tokenize --repair keeps what is whole",
                                          offset));
  }
  void checked(const Bytes& bytes) {
    if (copy) copy(bytes.data(), bytes.size());
  }

  void take_header(Bytes& frame, uint64_t bytes) {
    if (in_segment) fail_corrupt_shard(place, "a segment has no index");
    if (bytes > static_cast<uint64_t>(kHeaderFrameBytes + kMaxHeaderJson)) {
      fail_corrupt_shard(place, "header: too long");
    }
    read_rest(frame, bytes);
    header = parse_header(frame, place);
    if (segments == 0) {
      first = header;
    } else {
      check_same_kind(first, header, place);
    }
    in_segment = true;
    segment_start = place.offset;
    seen = {};
    checked(frame);
  }

  TokenBlock take_block(Bytes& frame, uint64_t bytes) {
    const auto ordinal = static_cast<uint64_t>(seen.rows.size());
    place.block = static_cast<int64_t>(ordinal);
    if (bytes > uint64_t{kBlockFrameBytes} + 5 * uint64_t{header.block_tokens_max}) {
      fail_corrupt_shard(place, "block header: too long");
    }
    read_rest(frame, bytes);
    ShardBlockFrame block = parse_block(frame, header, place);
    if (block.ordinal != ordinal) {
      fail_corrupt_shard(
          place, fmt::format("block header: ordinal {}, expected {}", block.ordinal, ordinal));
    }
    seen.rows.push_back(index_row(block, place.offset - segment_start));
    place.offset = offset;
    Bytes data;
    read(data, block.comp_bytes);
    if (data.size() != block.comp_bytes) cut();
    seen.tokens += block.n_tokens, seen.documents += block.n_doc_starts;
    TokenBlock out = decode_block(std::move(block), data, header, place);
    ++blocks;
    checked(frame);
    checked(data);
    return out;
  }

  void take_index(Bytes& frame, uint64_t bytes) {
    if (bytes != uint64_t{kIndexFrameBytes} + seen.rows.size() * uint64_t{kIndexRowBytes}) {
      fail_corrupt_shard(place, "index: does not describe as many blocks as there are");
    }
    read_rest(frame, bytes);
    const ShardIndex index = parse_index(frame, place);
    if (index.segment_id != header.segment_id || index.segment_bytes != offset - segment_start ||
        index.rows != seen.rows) {
      fail_corrupt_shard(place, "index: differs from the blocks before it");
    }
    tokens += seen.tokens, documents += seen.documents;
    ++segments;
    in_segment = false;
    checked(frame);
  }
};

ShardStream::ShardStream(int fd, std::string name, Copy copy) : state_(std::make_unique<State>()) {
  state_->fd = fd;
  state_->copy = std::move(copy);
  state_->place.file = std::move(name);
  State& s = *state_;
  Bytes frame = s.read_opening();
  if (frame.empty()) fail_corrupt_shard(s.place, "empty, expected a token shard (.swt)");
  uint64_t bytes;
  const FrameKind kind = frame_kind(frame, bytes, s.place);
  if (kind == FrameKind::data) {
    fail_corrupt_shard(s.place,
                       "a zstd stream without the frames of a shard; recompressing a shard loses "
                       "them, keep the .swt itself");
  }
  if (kind != FrameKind::header) fail_corrupt_shard(s.place, "not a token shard (.swt)");
  s.take_header(frame, bytes);
}
ShardStream::~ShardStream() = default;

bool ShardStream::next(TokenBlock& block) {
  State& s = *state_;
  for (;;) {
    s.place.offset = s.offset;
    s.place.segment = s.segments;
    s.place.block = -1;
    Bytes frame = s.read_opening();
    if (frame.empty()) {
      if (s.in_segment) s.cut();
      return false;
    }
    uint64_t bytes;
    const FrameKind kind = frame_kind(frame, bytes, s.place);
    if (kind != FrameKind::header && !s.in_segment) {
      fail_corrupt_shard(s.place, "a segment does not open with its header");
    }
    switch (kind) {
      case FrameKind::header: s.take_header(frame, bytes); break;
      case FrameKind::block:
        block = {};  // two of them at a time would be twice the memory
        block = s.take_block(frame, bytes);
        return true;
      case FrameKind::index: s.take_index(frame, bytes); break;
      case FrameKind::data: fail_corrupt_shard(s.place, "data without a block header");
      case FrameKind::foreign:
        s.read_rest(frame, bytes);
        s.checked(frame);
        break;
    }
  }
}

const ShardHeader& ShardStream::header() const { return state_->first; }
uint64_t ShardStream::tokens() const { return state_->tokens; }
uint64_t ShardStream::documents() const { return state_->documents; }
int64_t ShardStream::blocks() const { return state_->blocks; }
int64_t ShardStream::segments() const { return state_->segments; }
uint64_t ShardStream::bytes() const { return state_->offset; }

bool DocumentReader::next(std::vector<int32_t>& tokens) {
  tokens.clear();
  bool started = false;
  for (;;) {
    if (!open_ || at_ == block_.size()) {
      if (!stream_.next(block_)) return started;
      open_ = true;
      at_ = 0, next_start_ = 0;
    }
    if (next_start_ < block_.doc_starts.size() && block_.doc_starts[next_start_] == at_) {
      if (started) return true;
      ++next_start_;
    }
    // Tokens before the first start of a stream (a segment cut out of a longer one) count as a
    // document too.
    started = true;
    const int64_t end = next_start_ < block_.doc_starts.size()
                            ? int64_t{block_.doc_starts[next_start_]}
                            : block_.size();
    const auto old = static_cast<int64_t>(tokens.size());
    tokens.resize(static_cast<size_t>(old + end - at_));
    block_.copy(at_, end - at_, tokens.data() + old);
    at_ = end;
  }
}

void check_vocabulary(const ShardHeader& header, const std::array<uint8_t, 32>& vocab_sha256,
                      const std::string& shard_name, const std::string& vocabulary_name) {
  SW_CHECK(header.vocab_sha256 == vocab_sha256, corrupt,
           "{}: encoded with the vocabulary of SHA-256 {}..., {} is {}...; use the model it was "
           "encoded with",
           shard_name, to_hex(header.vocab_sha256.data(), 8), vocabulary_name,
           to_hex(vocab_sha256.data(), 8));
}

}  // namespace sw
