#include "libswitch/data/input_stream.h"

#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"

namespace sw {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 18;
constexpr int kWindowLogMax = 27;

// A buffered descriptor that can look at what comes next.
class RawInput {
 public:
  RawInput(FileDescriptor owned, int fd, std::string name)
      : owned_(std::move(owned)), fd_(fd), name_(std::move(name)), buffer_(kBufferBytes) {}

  // Fills the buffer until it holds `bytes` bytes or the input ends.
  std::string_view peek(size_t bytes) {
    while (size_ - begin_ < bytes && refill()) {
    }
    return {buffer_.data() + begin_, size_ - begin_};
  }
  // What is buffered, reading more when nothing is; empty at the end.
  std::string_view available() {
    if (begin_ == size_) refill();
    return {buffer_.data() + begin_, size_ - begin_};
  }
  void consume(size_t bytes) { begin_ += bytes, consumed_ += bytes; }
  uint64_t consumed() const { return consumed_; }
  const std::string& name() const { return name_; }

 private:
  bool refill() {
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, size_ - begin_);
      size_ -= begin_, begin_ = 0;
    }
    if (size_ == buffer_.size()) return false;
    for (;;) {
      const ssize_t n = ::read(fd_, buffer_.data() + size_, buffer_.size() - size_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(ErrorKind::io, "{}: read failed: {}", name_, std::strerror(errno));
      size_ += static_cast<size_t>(n);
      return n > 0;
    }
  }

  FileDescriptor owned_;
  int fd_;
  std::string name_;
  std::vector<char> buffer_;
  size_t begin_ = 0, size_ = 0;
  uint64_t consumed_ = 0;
};

class PlainStream : public InputStream {
 public:
  explicit PlainStream(std::unique_ptr<RawInput> raw) : raw_(std::move(raw)) {}
  int64_t read(char* out, int64_t bytes) override {
    const std::string_view in = raw_->available();
    const size_t n = std::min(in.size(), static_cast<size_t>(bytes));
    std::memcpy(out, in.data(), n);
    raw_->consume(n);
    return static_cast<int64_t>(n);
  }

 private:
  std::unique_ptr<RawInput> raw_;
};

class GzipStream : public InputStream {
 public:
  explicit GzipStream(std::unique_ptr<RawInput> raw) : raw_(std::move(raw)) {
    SW_CHECK(inflateInit2(&z_, 15 + 16) == Z_OK, io, "{}: zlib does not start", raw_->name());
  }
  ~GzipStream() override { inflateEnd(&z_); }

  int64_t read(char* out, int64_t bytes) override {
    z_.next_out = reinterpret_cast<Bytef*>(out);
    z_.avail_out = static_cast<uInt>(std::min<int64_t>(bytes, 1 << 30));
    const uInt wanted = z_.avail_out;
    while (z_.avail_out == wanted) {
      const std::string_view in = raw_->available();
      if (in.empty()) {
        SW_CHECK(!inside_, corrupt,
                 "{}: truncated gzip data: the file ends at byte {} inside a member; copy or "
                 "download it again",
                 raw_->name(), raw_->consumed());
        return 0;
      }
      if (!inside_) {
        SW_CHECK(static_cast<unsigned char>(in[0]) == 0x1f, corrupt,
                 "{}: byte {}: expected another gzip member or the end, got other data",
                 raw_->name(), raw_->consumed());
        inflateReset(&z_);
        inside_ = true;
      }
      z_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
      z_.avail_in = static_cast<uInt>(in.size());
      const int code = inflate(&z_, Z_NO_FLUSH);
      raw_->consume(in.size() - z_.avail_in);
      if (code == Z_STREAM_END) {
        inside_ = false;
      } else if (code != Z_OK && code != Z_BUF_ERROR) {
        fail(ErrorKind::corrupt, "{}: damaged gzip data near byte {}: {}", raw_->name(),
             raw_->consumed(), z_.msg != nullptr ? z_.msg : "unknown error");
      }
    }
    return wanted - z_.avail_out;
  }

 private:
  std::unique_ptr<RawInput> raw_;
  z_stream z_{};
  bool inside_ = false;
};

class ZstdStream : public InputStream {
 public:
  explicit ZstdStream(std::unique_ptr<RawInput> raw)
      : raw_(std::move(raw)), context_(ZSTD_createDCtx()) {
    SW_CHECK(context_ != nullptr, io, "{}: zstd does not start", raw_->name());
    ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kWindowLogMax);
  }
  ~ZstdStream() override { ZSTD_freeDCtx(context_); }

  int64_t read(char* out, int64_t bytes) override {
    ZSTD_outBuffer output{out, static_cast<size_t>(bytes), 0};
    while (output.pos == 0) {
      const std::string_view in = raw_->available();
      // Output may be pending inside zstd when the input is at its end.
      if (in.empty() && !inside_) return 0;
      ZSTD_inBuffer input{in.data(), in.size(), 0};
      const size_t code = ZSTD_decompressStream(context_, &output, &input);
      raw_->consume(input.pos);
      if (ZSTD_isError(code)) {
        fail(ErrorKind::corrupt, "{}: damaged or oversized zstd data near byte {}: {}",
             raw_->name(), raw_->consumed(), ZSTD_getErrorName(code));
      }
      inside_ = code != 0;
      SW_CHECK(!(in.empty() && inside_ && output.pos == 0), corrupt,
               "{}: truncated zstd data: the file ends at byte {} inside a frame; copy or download "
               "it again",
               raw_->name(), raw_->consumed());
    }
    return static_cast<int64_t>(output.pos);
  }

 private:
  std::unique_ptr<RawInput> raw_;
  ZSTD_DCtx* context_;
  bool inside_ = false;
};

uint32_t little_endian_u32(std::string_view bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

}  // namespace

std::unique_ptr<InputStream> InputStream::open(const std::filesystem::path& path) {
  std::unique_ptr<RawInput> raw;
  if (path == "-") {
    raw = std::make_unique<RawInput>(FileDescriptor(), STDIN_FILENO, "standard input");
  } else {
    FileDescriptor fd = open_for_read(path);
    const int number = fd.get();
    raw = std::make_unique<RawInput>(std::move(fd), number, path.string());
  }
  const std::string_view head = raw->peek(16);
  const auto starts_with = [&](std::string_view magic) {
    return head.substr(0, magic.size()) == magic;
  };
  if (starts_with("\x1f\x8b")) return std::make_unique<GzipStream>(std::move(raw));
  if (head.size() >= 4) {
    const uint32_t magic = little_endian_u32(head);
    if (magic == 0xFD2FB528u || (magic & 0xFFFFFFF0u) == 0x184D2A50u) {
      SW_CHECK(head.size() < 16 || head.substr(8, 8) != "SWTSHDR1", corrupt,
               "{}: is a token shard, expected text; its text: sw-tokenize --decode", raw->name());
      return std::make_unique<ZstdStream>(std::move(raw));
    }
  }
  const auto refuse = [&](const char* what, const char* command) {
    fail(ErrorKind::corrupt,
         "{}: is {} data, which is not read directly; try: {} {} | sw-tokenize ...", raw->name(),
         what, command, path.string());
  };
  if (starts_with(std::string_view("\xfd"
                                   "7zXZ\0",
                                   6))) {
    refuse("xz", "xz -dc");
  }
  if (starts_with("BZh") && head.size() >= 10 && head.substr(4, 6) == "1AY&SY") {
    refuse("bzip2", "bzip2 -dc");
  }
  if (starts_with("PK\x03\x04")) refuse("zip", "unzip -p");
  return std::make_unique<PlainStream>(std::move(raw));
}

}  // namespace sw
