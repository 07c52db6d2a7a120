#include "libswitch/base/units.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace sw {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

struct Suffix {
  int thousands = 0;  // the power of 1000 or 1024
  bool binary = false;
};

// Takes "K", "Mi", ... off the end of `text`.
Suffix take_suffix(std::string_view& text) {
  Suffix suffix;
  std::string_view rest = text;
  if (rest.size() >= 2 && rest.back() == 'i') {
    suffix.binary = true;
    rest.remove_suffix(1);
  }
  if (rest.empty()) return {};
  switch (rest.back()) {
    case 'k':
    case 'K': suffix.thousands = 1; break;
    case 'M': suffix.thousands = 2; break;
    case 'G': suffix.thousands = 3; break;
    case 'T': suffix.thousands = 4; break;
    default: return {};
  }
  rest.remove_suffix(1);
  text = rest;
  return suffix;
}

// A decimal number as mantissa * 10^exponent; more digits than the mantissa holds are an overflow.
struct Decimal {
  bool negative = false;
  unsigned __int128 mantissa = 0;
  int exponent = 0;
  UnitProblem problem = UnitProblem::none;
};

Decimal parse_decimal(std::string_view text) {
  Decimal d;
  size_t i = 0;
  if (i < text.size() && (text[i] == '-' || text[i] == '+')) d.negative = text[i++] == '-';
  constexpr auto kLimit = std::numeric_limits<unsigned __int128>::max() / 10 - 1;
  bool digits = false, point = false;
  for (; i < text.size() && (is_digit(text[i]) || (text[i] == '.' && !point)); ++i) {
    if (text[i] == '.') {
      point = true;
      continue;
    }
    digits = true;
    if (d.mantissa > kLimit) {
      d.problem = UnitProblem::overflow;
    } else {
      d.mantissa = d.mantissa * 10 + static_cast<unsigned>(text[i] - '0');
      if (point) --d.exponent;
    }
  }
  if (!digits) return {.problem = UnitProblem::malformed};
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    bool minus = false;
    if (i < text.size() && (text[i] == '-' || text[i] == '+')) minus = text[i++] == '-';
    if (i == text.size()) return {.problem = UnitProblem::malformed};
    int exponent = 0;
    for (; i < text.size() && is_digit(text[i]); ++i) {
      if (exponent < 10000) exponent = exponent * 10 + (text[i] - '0');
    }
    d.exponent += minus ? -exponent : exponent;
  }
  if (i != text.size()) return {.problem = UnitProblem::malformed};
  return d;
}

struct DurationUnit {
  std::string_view name;
  double seconds;
};
constexpr std::array<DurationUnit, 5> kDurationUnits = {
    {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {"ms", 0.001}}};

}  // namespace

UnitResult<int64_t> parse_integer(std::string_view text) {
  const Suffix suffix = take_suffix(text);
  Decimal d = parse_decimal(text);
  if (d.problem != UnitProblem::none) return {0, d.problem};
  if (d.mantissa == 0) return {0};
  if (!suffix.binary) d.exponent += 3 * suffix.thousands;
  constexpr unsigned __int128 kMax = static_cast<unsigned __int128>(1) << 63;
  constexpr auto kAll = std::numeric_limits<unsigned __int128>::max();
  if (suffix.binary) {
    const int shift = 10 * suffix.thousands;
    if (d.mantissa > (kAll >> shift)) return {0, UnitProblem::overflow};
    d.mantissa <<= shift;
  }
  for (; d.exponent < 0; ++d.exponent) {
    if (d.mantissa % 10 != 0) return {0, UnitProblem::fraction};
    d.mantissa /= 10;
  }
  for (; d.exponent > 0; --d.exponent) {
    if (d.mantissa > kMax) return {0, UnitProblem::overflow};
    d.mantissa *= 10;
  }
  if (d.mantissa > kMax - (d.negative ? 0 : 1)) return {0, UnitProblem::overflow};
  const auto magnitude = static_cast<uint64_t>(d.mantissa);
  return {static_cast<int64_t>(d.negative ? ~magnitude + 1 : magnitude)};
}

UnitResult<double> parse_number(std::string_view text) {
  const Suffix suffix = take_suffix(text);
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code == std::errc::result_out_of_range && end == text.data() + text.size()) {
    return {0, UnitProblem::overflow};
  }
  if (code != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    return {0, UnitProblem::malformed};
  }
  value *= std::pow(suffix.binary ? 1024.0 : 1000.0, suffix.thousands);
  if (!std::isfinite(value)) return {0, UnitProblem::overflow};
  return {value};
}

UnitResult<double> parse_duration(std::string_view text) {
  if (text.empty()) return {0, UnitProblem::malformed};
  double seconds = 0;
  size_t next_unit = 0;  // units before this one are used up
  bool first = true;
  while (!text.empty()) {
    size_t digits = 0;
    while (digits < text.size() && (is_digit(text[digits]) || text[digits] == '.')) ++digits;
    if (digits == 0) return {0, UnitProblem::malformed};
    const UnitResult<double> count = parse_number(text.substr(0, digits));
    if (!count) return count;
    text.remove_prefix(digits);
    size_t letters = 0;
    while (letters < text.size() && text[letters] >= 'a' && text[letters] <= 'z') ++letters;
    if (letters == 0) {  // a bare number counts seconds, alone
      if (!first || !text.empty()) return {0, UnitProblem::malformed};
      return {count.value};
    }
    size_t unit = next_unit;
    while (unit < kDurationUnits.size() && kDurationUnits[unit].name != text.substr(0, letters)) {
      ++unit;
    }
    if (unit == kDurationUnits.size()) return {0, UnitProblem::malformed};
    // A division is correctly rounded where a product with 0.001 is not.
    seconds += kDurationUnits[unit].name == "ms" ? count.value / 1000
                                                 : count.value * kDurationUnits[unit].seconds;
    text.remove_prefix(letters);
    next_unit = unit + 1;
    first = false;
  }
  if (!std::isfinite(seconds)) return {0, UnitProblem::overflow};
  return {seconds};
}

std::string format_duration(double seconds) {
  std::array<char, 400> digits;  // the largest double has 309 digits
  const auto [end, code] = std::to_chars(digits.data(), digits.data() + digits.size(), seconds,
                                         std::chars_format::fixed);
  const std::string plain = fmt::format("{}s", std::string_view(digits.data(), end));
  if (!(seconds >= 0.001 && seconds < 1e12)) return plain;
  auto left = static_cast<int64_t>(std::llround(seconds * 1000));
  std::string text;
  for (const DurationUnit& unit : kDurationUnits) {
    const auto ms = static_cast<int64_t>(std::llround(unit.seconds * 1000));
    if (left / ms > 0) text += fmt::format("{}{}", left / ms, unit.name);
    left %= ms;
  }
  return parse_duration(text).value == seconds ? text : plain;
}

}  // namespace sw
