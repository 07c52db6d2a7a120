// Lines of a text file, plain or compressed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/data/input_stream.h"

namespace sw {

/// Lines of one file at constant memory, without their ends ("\n", "\r\n") and without a
/// byte-order mark; "-" is standard input.
class LineReader {
 public:
  /// `max_line_bytes` guards against binary input. Throws as InputStream::open.
  LineReader(std::filesystem::path path, int64_t max_line_bytes);

  /// The next line, possibly empty; false at the end of the file. Throws corrupt for a line over
  /// the limit and as InputStream::read.
  bool next(std::string& line);

  /// Number of the line that next() gave last, from 1.
  int64_t line() const { return line_; }
  /// "file:line" of it, for messages.
  std::string place() const;
  /// Uncompressed bytes read so far.
  int64_t bytes_read() const { return bytes_read_; }

 private:
  bool fill();

  std::filesystem::path path_;
  int64_t max_line_bytes_;
  std::unique_ptr<InputStream> stream_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  int64_t line_ = 0, bytes_read_ = 0;
};

/// "file:line", "standard input:line" for "-".
std::string line_place(const std::filesystem::path& path, int64_t line);

/// Throws corrupt, naming `place`, unless `text` is UTF-8; `unit` is what the bytes are counted in.
void require_utf8(const std::string& text, const std::string& place, const char* unit = "line");

}  // namespace sw
