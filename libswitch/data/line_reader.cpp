#include "libswitch/data/line_reader.h"

#include <cstring>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/data/utf8.h"

namespace sw {
namespace {

constexpr size_t kLineBufferBytes = size_t{1} << 18;

}  // namespace

std::string line_place(const std::filesystem::path& path, int64_t line) {
  return fmt::format("{}:{}", path == "-" ? "standard input" : path.string(), line);
}

void require_utf8(const std::string& text, const std::string& place, const char* unit) {
  const int64_t bad = find_invalid_utf8(text);
  SW_CHECK(
      bad < 0, corrupt,
      "{}: byte {} of the {} (0x{:02X}) is not UTF-8; convert the file, e.g. iconv -f latin1 -t "
      "utf-8",
      place, bad + 1, unit, static_cast<unsigned char>(text[static_cast<size_t>(bad)]));
}

LineReader::LineReader(std::filesystem::path path, int64_t max_line_bytes)
    : path_(std::move(path)),
      max_line_bytes_(max_line_bytes),
      stream_(InputStream::open(path_)),
      buffer_(kLineBufferBytes) {}

std::string LineReader::place() const { return line_place(path_, line_); }

bool LineReader::fill() {
  begin_ = 0, end_ = 0;
  const int64_t n = stream_->read(buffer_.data(), static_cast<int64_t>(buffer_.size()));
  end_ = static_cast<size_t>(n);
  bytes_read_ += n;
  return n > 0;
}

bool LineReader::next(std::string& line) {
  line.clear();
  ++line_;
  for (;;) {
    if (begin_ == end_ && !fill()) {
      if (line.empty()) return false;
      break;
    }
    const char* start = buffer_.data() + begin_;
    const void* newline = std::memchr(start, '\n', end_ - begin_);
    const size_t n = newline != nullptr
                         ? static_cast<size_t>(static_cast<const char*>(newline) - start)
                         : end_ - begin_;
    SW_CHECK(line.size() + n <= static_cast<size_t>(max_line_bytes_), corrupt,
             "{}: line is longer than {} bytes; is this a text file with a document per line?",
             place(), max_line_bytes_);
    line.append(start, n);
    begin_ += n;
    if (newline != nullptr) {
      ++begin_;
      break;
    }
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  if (line_ == 1 && line.compare(0, 3, "\xEF\xBB\xBF") == 0) line.erase(0, 3);
  return true;
}

}  // namespace sw
