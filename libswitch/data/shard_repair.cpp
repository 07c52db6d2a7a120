#include "libswitch/data/shard_repair.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/data/shard_reader.h"

namespace sw {
namespace {

ShardTotals drain(ShardStream& stream) {
  TokenBlock block;
  while (stream.next(block)) {
  }
  return {stream.tokens(), stream.documents(), stream.bytes(), stream.blocks(), stream.segments()};
}

bool is_whole(const std::filesystem::path& path) {
  try {
    verify_shard(path);
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::corrupt) throw;
    return false;
  }
}

// Copies what is whole of an open shard into a new one, segment by segment.
class Mender {
 public:
  Mender(int in, uint64_t bytes, int out, std::string name, std::string out_name)
      : in_(in), bytes_(bytes), out_(out), name_(std::move(name)), out_name_(std::move(out_name)) {}

  RepairReport run() {
    ShardPlace place{name_, 0, -1, 0};
    std::optional<ShardHeader> first;
    try {
      while (place.offset < bytes_) {
        uint64_t frame_bytes;
        const Bytes head = read(place.offset, std::min<uint64_t>(16, bytes_ - place.offset));
        const FrameKind kind = frame_kind(head, frame_bytes, place);
        if (kind == FrameKind::data) fail_corrupt_shard(place, "data without a block header");
        if (frame_bytes > bytes_ - place.offset) fail_corrupt_shard(place, "torn frame");
        const Bytes frame = read(place.offset, frame_bytes);
        if (kind == FrameKind::header) {
          ShardHeader header = parse_header(frame, place);
          if (first) check_same_kind(*first, header, place);
          close_segment();
          if (!first) first = header;
          open_segment(std::move(header));
        } else if (!header_) {
          fail_corrupt_shard(place, "no header");
        } else if (kind == FrameKind::block) {
          ShardBlockFrame block = parse_block(frame, *header_, place);
          const uint64_t data_at = place.offset + frame_bytes;
          if (block.comp_bytes > bytes_ - data_at) fail_corrupt_shard(place, "torn block");
          frame_bytes += block.comp_bytes;
          const Bytes data = read(data_at, block.comp_bytes);
          copy_block(std::move(block), data, place);
        }
        place.offset += frame_bytes;
      }
    } catch (const Error& error) {
      // From here on nothing can be told apart: the tail is torn.
      if (error.kind() != ErrorKind::corrupt || !first) throw;
    }
    if (!first) fail_corrupt_shard(place, "empty file, nothing to keep");
    close_segment();
    report_.changed = true;
    report_.dropped_bytes = bytes_ - std::min(bytes_, kept_source_bytes_);
    return report_;
  }

 private:
  Bytes read(uint64_t offset, uint64_t bytes) {
    Bytes out(bytes);
    pread_all(in_, out.data(), bytes, offset, name_);
    return out;
  }
  void put(const Bytes& bytes) {
    write_all(out_, bytes.data(), bytes.size(), out_name_);
    written_ += bytes.size();
    kept_source_bytes_ += bytes.size();
  }
  void open_segment(ShardHeader header) {
    header_ = std::move(header);
    index_ = {};
    index_.segment_id = header_->segment_id;
    written_ = 0;
    lost_ = false;
    put(serialize(*header_));
  }
  void copy_block(ShardBlockFrame block, const Bytes& data, const ShardPlace& place) {
    try {
      block.doc_starts = decode_block(std::move(block), data, *header_, place).doc_starts;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::corrupt) throw;
      ++report_.dropped_blocks;
      lost_ = true;
      return;
    }
    block.ordinal = index_.rows.size();
    if (lost_ && block.continues) {
      // What it continued is gone: its first token opens a document now.
      block.continues = false;
      if (block.doc_starts.empty() || block.doc_starts[0] != 0) {
        block.doc_starts.insert(block.doc_starts.begin(), 0);
      }
      block.n_doc_starts = static_cast<uint32_t>(block.doc_starts.size());
    }
    lost_ = false;
    index_.rows.push_back(index_row(block, written_));
    index_.tokens += block.n_tokens;
    index_.documents += block.doc_starts.size();
    put(serialize(block));
    put(data);
    ++report_.kept_blocks;
    report_.kept_tokens += block.n_tokens;
  }
  void close_segment() {
    if (!header_) return;
    index_.segment_bytes = written_ + static_cast<uint64_t>(kIndexFrameBytes) +
                           index_.rows.size() * static_cast<uint64_t>(kIndexRowBytes);
    put(serialize(index_));
    header_.reset();
  }

  int in_;
  uint64_t bytes_;
  int out_;
  std::string name_, out_name_;
  std::optional<ShardHeader> header_;
  ShardIndex index_;
  bool lost_ = false;
  uint64_t written_ = 0, kept_source_bytes_ = 0;
  RepairReport report_;
};

}  // namespace

ShardTotals verify_shard(const std::filesystem::path& path) {
  if (path == "-") {
    ShardStream stream(STDIN_FILENO, "standard input");
    return drain(stream);
  }
  const FileDescriptor fd = open_for_read(path);
  ShardStream stream(fd.get(), path.string());
  const ShardTotals totals = drain(stream);
  // The way from the end, which random access takes, must lead to the same blocks.
  const ShardFile file(path);
  SW_CHECK(file.blocks() == totals.blocks && file.tokens() == totals.tokens &&
               file.documents() == totals.documents,
           corrupt, "{}: its indices describe {} blocks, it holds {}", path.string(), file.blocks(),
           totals.blocks);
  return totals;
}

RepairReport repair_shard(const std::filesystem::path& path) {
  if (is_whole(path)) return {};
  const std::filesystem::path original = path.string() + ".damaged";
  SW_CHECK(!std::filesystem::exists(original), cannot_create,
           "{}: exists from an earlier repair; move it away first", original.string());
  const FileDescriptor in = open_for_read(path);
  struct stat info {};
  SW_CHECK(::fstat(in.get(), &info) == 0, io, "{}: {}", path.string(), std::strerror(errno));
  AtomicFile out(path);
  RepairReport report = Mender(in.get(), static_cast<uint64_t>(info.st_size), out.fd(),
                               path.string(), out.temporary_path().string())
                            .run();
  // A second name for the old content first, so that at no moment it has none.
  SW_CHECK(::link(path.c_str(), original.c_str()) == 0, cannot_create, "{}: cannot create: {}",
           original.string(), std::strerror(errno));
  out.commit();
  report.original = original;
  return report;
}

ShardTotals spool_shard(int fd, const std::string& name, const std::filesystem::path& path) {
  AtomicFile out(path);
  const std::string out_name = out.temporary_path().string();
  ShardStream stream(fd, name, [&](const void* data, size_t bytes) {
    write_all(out.fd(), data, bytes, out_name);
  });
  const ShardTotals totals = drain(stream);
  out.commit();
  return totals;
}

ShardTotals spool_stdin(const std::filesystem::path& path) {
  return spool_shard(STDIN_FILENO, "standard input", path);
}

}  // namespace sw
