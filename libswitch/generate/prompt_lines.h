// Prompts from a stream, a line each, in batches that do not keep a person waiting.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

class PromptLines {
 public:
  /// Reads from a file descriptor, which stays the caller's.
  explicit PromptLines(int fd) : fd_(fd) {}

  /// The next lines without their ends ("\n" or "\r\n") and a byte order mark, at least one and at
  /// most `most`; empty at the end of the stream. Waits for the first; takes further ones as long
  /// as they are there, or
  /// (`full`) until there are `most`. Throws io, and corrupt for a line of over 64 MiB,
  /// when the lines before it have been returned.
  std::vector<std::string> next(int64_t most, bool full);

 private:
  bool take_line(std::string& line);
  bool fill(bool wait);

  int fd_;
  bool ended_ = false;
  int64_t line_ = 0;
  std::string buffer_;
  size_t begin_ = 0, searched_ = 0;
  std::exception_ptr pending_;  // thrown once the lines before it are taken
};

/// The prompt in a line: the line itself, or, where `field` is not empty, that string field of the
/// JSON object it holds. Throws corrupt, naming the line's number, for what is not UTF-8 or not
/// such an object.
std::string prompt_of(std::string_view line, const std::string& field, int64_t number);

}  // namespace sw
