#include "libswitch/data/tasks/spelling.h"

namespace sw {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r'; }

bool is_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::string collapse_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_run = false;
  for (const char c : text) {
    if (!is_space(c)) {
      out += c;
    } else if (!in_run) {
      out += ' ';
    }
    in_run = is_space(c);
  }
  return out;
}

std::string pad_punctuation(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (const char c : text) {
    if (is_punctuation(c)) {
      out += ' ';
      out += c;
      out += ' ';
    } else {
      out += c;
    }
  }
  return collapse_spaces(out);
}

bool are_padded(std::span<const std::string> answers) {
  int64_t padded = 0, unpadded = 0;
  for (const std::string& answer : answers) {
    const std::string with = pad_punctuation(answer), without = collapse_spaces(answer);
    bool any = false;
    for (const char c : answer) any |= is_punctuation(c);
    if (any) ++(trimmed(with) == trimmed(without) ? padded : unpadded);
  }
  return padded >= unpadded;
}

}  // namespace sw
