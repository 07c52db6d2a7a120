#include "libswitch/data/tasks/metrics/python_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "libswitch/data/tasks/metrics/unicode_tables.h"

namespace sw {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

char32_t lower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  const auto runs = lower_case_runs();
  const auto run =
      std::partition_point(runs.begin(), runs.end(), [c](const CaseRun& r) { return r.last < c; });
  if (run == runs.end() || c < run->first || (c - run->first) % run->step != 0) return c;
  return static_cast<char32_t>(static_cast<int64_t>(c) + run->distance);
}

bool is_in(std::span<const CodePointRange> ranges, char32_t c) {
  const auto range = std::partition_point(ranges.begin(), ranges.end(),
                                          [c](const CodePointRange& r) { return r.last < c; });
  return range != ranges.end() && c >= range->first;
}

bool is_case_ignorable(char32_t c) {
  if (c >= 0x80) return is_in(case_ignorable_ranges(), c);
  return c == '\'' || c == '.' || c == ':' || c == '^' || c == '`';
}

bool is_cased(char32_t c) {
  if (c >= 0x80) return is_in(cased_ranges(), c);
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Unicode, table 3-17: a sigma after a letter with case and not before one.
bool is_final(const std::u32string& text, size_t at) {
  size_t before = at, after = at + 1;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return before > 0 && is_cased(text[before - 1]) &&
         !(after < text.size() && is_cased(text[after]));
}

}  // namespace

std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    const int more = lead < 0x80 ? 0 : lead < 0xC0 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    char32_t c = more == 0 ? lead : lead & (0x3F >> more);
    int left = more;
    for (; left > 0 && i < text.size() && (text[i] & 0xC0) == 0x80; --left) {
      c = c << 6 | (static_cast<unsigned char>(text[i++]) & 0x3F);
    }
    out.push_back(left == 0 ? c : kReplacement);
  }
  return out;
}

void append_utf8(char32_t c, std::string& text) {
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xC0 | c >> 6);
    text += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    text += static_cast<char>(0xE0 | c >> 12);
    text += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | c >> 18);
    text += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  }
}

bool is_python_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_word_character(char32_t c) {
  if (c < 0x80) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  }
  return is_in(alphanumeric_ranges(), c);
}

std::string python_lower(std::string_view text) {
  constexpr char32_t kCapitalSigma = 0x3A3, kSigma = 0x3C3, kFinalSigma = 0x3C2;
  constexpr char32_t kCapitalIWithDot = 0x130, kDotAbove = 0x307;
  std::string out;
  out.reserve(text.size());
  if (is_ascii(text)) {
    for (const char c : text) out += static_cast<char>(lower(static_cast<unsigned char>(c)));
    return out;
  }
  const std::u32string code_points = decode_utf8(text);
  for (size_t i = 0; i < code_points.size(); ++i) {
    const char32_t c = code_points[i];
    if (c == kCapitalSigma) {
      append_utf8(is_final(code_points, i) ? kFinalSigma : kSigma, out);
    } else if (c == kCapitalIWithDot) {
      append_utf8('i', out);
      append_utf8(kDotAbove, out);
    } else {
      append_utf8(lower(c), out);
    }
  }
  return out;
}

std::string python_strip(std::string_view text) {
  const std::u32string code_points = decode_utf8(text);
  size_t begin = 0, end = code_points.size();
  while (begin < end && is_python_space(code_points[begin])) ++begin;
  while (end > begin && is_python_space(code_points[end - 1])) --end;
  std::string out;
  for (size_t i = begin; i < end; ++i) append_utf8(code_points[i], out);
  return out;
}

std::vector<std::string> python_split(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const char32_t c : decode_utf8(text)) {
    if (!is_python_space(c)) {
      append_utf8(c, word);
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

std::vector<std::string> split_at(std::string_view text, char separator) {
  std::vector<std::string> pieces;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != text.npos; begin = end + 1) {
    pieces.emplace_back(text.substr(begin, end - begin));
  }
  pieces.emplace_back(text.substr(begin));
  return pieces;
}

std::optional<double> python_float(std::string_view text) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const std::string stripped = python_strip(text);
  std::string plain;
  for (size_t i = 0; i < stripped.size(); ++i) {
    const char c = stripped[i];
    if (c == '_') {
      const bool between =
          i > 0 && i + 1 < stripped.size() && digit(stripped[i - 1]) && digit(stripped[i + 1]);
      if (!between) return std::nullopt;
    } else if (!(i == 0 && c == '+')) {
      plain += c;
    }
  }
  // from_chars takes no "+", and neither does float() take "+-1".
  if (stripped.starts_with("+-")) return std::nullopt;
  double value = 0;
  const char* end = plain.data() + plain.size();
  const auto parsed = std::from_chars(plain.data(), end, value);
  if (parsed.ptr != end || plain.empty() || !std::isfinite(value)) return std::nullopt;
  if (parsed.ec != std::errc()) return std::nullopt;
  return value;
}

}  // namespace sw
