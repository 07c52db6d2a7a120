#include "libswitch/generate/prompt_lines.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/data/json_field.h"
#include "libswitch/data/utf8.h"

namespace sw {
namespace {

constexpr size_t kLongestLine = size_t{64} << 20;

}  // namespace

// Puts more of the stream into the buffer. False when nothing more is there: now, or at all.
bool PromptLines::fill(bool wait) {
  if (ended_) return false;
  if (!wait) {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, 0) <= 0) return false;
  }
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    searched_ -= begin_;
    begin_ = 0;
  }
  char block[1 << 16];
  ssize_t got = -1;
  do {
    got = ::read(fd_, block, sizeof block);
  } while (got < 0 && errno == EINTR);
  SW_CHECK(got >= 0, io, "stdin: cannot read: {}", std::strerror(errno));
  if (got == 0) {
    ended_ = true;
    return false;
  }
  buffer_.append(block, static_cast<size_t>(got));
  return true;
}

// A line that is in the buffer.
bool PromptLines::take_line(std::string& line) {
  size_t end = buffer_.find('\n', searched_);
  const bool last = end == std::string::npos;
  SW_CHECK((last ? buffer_.size() : end) - begin_ <= kLongestLine, corrupt,
           "stdin:{}: a line of over {} MiB; expected text, one prompt a line", line_ + 1,
           kLongestLine >> 20);
  if (last) {
    searched_ = buffer_.size();
    if (!ended_ || begin_ == buffer_.size()) return false;
    end = buffer_.size();
  }
  line.assign(buffer_, begin_, end - begin_);
  if (!line.empty() && line.back() == '\r') line.pop_back();
  begin_ = searched_ = last ? end : end + 1;
  ++line_;
  // A byte order mark is no part of the text, as in every other file.
  if (line_ == 1 && line.compare(0, 3, "\xEF\xBB\xBF") == 0) line.erase(0, 3);
  return true;
}

std::vector<std::string> PromptLines::next(int64_t most, bool full) {
  if (pending_) std::rethrow_exception(std::exchange(pending_, nullptr));
  std::vector<std::string> lines;
  std::string line;
  try {
    while (static_cast<int64_t>(lines.size()) < most) {
      if (take_line(line)) {
        lines.push_back(std::move(line));
      } else if (!fill(full || lines.empty()) && !(ended_ && begin_ < buffer_.size())) {
        break;
      }
    }
  } catch (const Error&) {
    // The lines before it are answered first.
    if (lines.empty()) throw;
    pending_ = std::current_exception();
  }
  return lines;
}

std::string prompt_of(std::string_view line, const std::string& field, int64_t number) {
  const int64_t invalid = find_invalid_utf8(line);
  SW_CHECK(invalid < 0, corrupt, "stdin:{}: not UTF-8 at byte {}", number, invalid + 1);
  if (field.empty()) return std::string(line);
  return string_field(line, field, [&] { return fmt::format("stdin:{}", number); });
}

}  // namespace sw
