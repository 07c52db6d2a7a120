#include "libswitch/report/drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libswitch/base/options_help.h"

namespace sw {
namespace {

constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr const char* kLeftBlocks[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
constexpr const char* kNone = "·";

bool goes_on(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Calls draw(mean) for each of at most `columns` runs.
template <class Draw>
std::string by_column(std::span<const double> values, int columns, const Draw& draw) {
  const size_t n = values.size();
  const size_t width = std::min(n, static_cast<size_t>(std::max(columns, 1)));
  std::string text;
  for (size_t column = 0; column < width; ++column) {
    const size_t begin = column * n / width, end = (column + 1) * n / width;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += values[i];
    text += draw(sum / static_cast<double>(end - begin));
  }
  return text;
}

}  // namespace

std::string sparkline(std::span<const double> values, double top, int columns) {
  return by_column(values, columns, [&](double value) {
    if (!(value > 0) || !(top > 0)) return kNone;
    const double level = std::ceil(std::min(value / top, 1.0) * 8 - 1e-9) - 1;
    return kBlocks[static_cast<size_t>(std::clamp(level, 0.0, 7.0))];
  });
}

std::string sparkline_between(std::span<const double> values, double bottom, double top,
                              int columns) {
  return by_column(values, columns, [&](double value) {
    if (!std::isfinite(value)) return kNone;
    const double level = top > bottom ? (value - bottom) / (top - bottom) * 8 : 4;
    return kBlocks[static_cast<size_t>(std::clamp(level, 0.0, 7.0))];
  });
}

std::string bar(double value, double top, int columns) {
  const double length = top > 0 ? std::clamp(value / top, 0.0, 1.0) * columns : 0;
  const auto eighths = static_cast<int>(std::lround(length * 8));
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  return text + kLeftBlocks[eighths % 8];
}

std::string paint(const std::string& text, const char* code, bool color) {
  return color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
}

// fmt's own widths count bytes or columns of block characters, by version.
std::string pad(const std::string& text, int width) {
  return text + std::string(static_cast<size_t>(std::max(0, width - display_width(text))), ' ');
}

std::string pad_left(const std::string& text, int width) {
  return std::string(static_cast<size_t>(std::max(0, width - display_width(text))), ' ') + text;
}

std::string shorten(const std::string& text, int width) {
  if (display_width(text) <= width) return text;
  size_t begin = 0;
  for (int drop = display_width(text) - width + 1; drop > 0 && begin < text.size(); --drop) {
    ++begin;
    while (begin < text.size() && goes_on(text[begin])) ++begin;
  }
  return "…" + text.substr(begin);
}

std::string cut(const std::string& text, int width) {
  if (display_width(text) <= width) return text;
  size_t end = 0;
  for (int left = width - 1; left > 0 && end < text.size(); --left) {
    ++end;
    while (end < text.size() && goes_on(text[end])) ++end;
  }
  return text.substr(0, end) + "…";
}

std::string number(double value, int decimals) {
  if (!std::isfinite(value)) return "-";
  if (std::abs(value) >= 1e4) return fmt::format("{:.1e}", value);
  return fmt::format("{:.{}f}", value, value >= 100 ? 1 : decimals);
}

std::string percent(double share) {
  const std::string text = number(100 * share, 1);
  return std::isfinite(share) ? text + "%" : text;
}

std::string grouped(int64_t value) {
  std::string text = std::to_string(value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t at = text.size(); at > first + 3;) text.insert(at -= 3, ",");
  return text;
}

int digits(int64_t value) { return static_cast<int>(fmt::format_int(value).size()); }

}  // namespace sw
