#include "libswitch/report/html_picture.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/report/drawing.h"

namespace sw {
namespace {

struct Color {
  double red, green, blue;
};

// Of viridis (van der Walt and Smith 2015), at equal distances.
constexpr std::array<Color, 6> kViridis = {
    {{68, 1, 84}, {65, 68, 135}, {42, 120, 142}, {34, 168, 132}, {122, 209, 81}, {253, 231, 37}}};

std::string palette() {
  std::string colors = "\xc8\x32\x1e";  // kZeroColor
  for (int i = 1; i < 256; ++i) {
    const double at = (i - 1) / 254.0 * (kViridis.size() - 1);
    const auto left = std::min(static_cast<size_t>(at), kViridis.size() - 2);
    const double part = at - static_cast<double>(left);
    const Color &a = kViridis[left], &b = kViridis[left + 1];
    for (const auto channel : {&Color::red, &Color::green, &Color::blue}) {
      colors += static_cast<char>(std::lround(a.*channel + part * (b.*channel - a.*channel)));
    }
  }
  return colors;
}

std::string big_endian(uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

std::string png_chunk(const char* type, const std::string& content) {
  const std::string checked = type + content;
  const auto crc =
      ::crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()));
  return big_endian(static_cast<uint32_t>(content.size())) + checked +
         big_endian(static_cast<uint32_t>(crc));
}

std::string deflated(const std::string& bytes) {
  uLongf size = ::compressBound(static_cast<uLong>(bytes.size()));
  std::string out(size, '\0');
  const int result = ::compress2(reinterpret_cast<Bytef*>(out.data()), &size,
                                 reinterpret_cast<const Bytef*>(bytes.data()),
                                 static_cast<uLong>(bytes.size()), 9);
  SW_CHECK(result == Z_OK, internal, "deflate of a picture: zlib error {}", result);
  out.resize(size);
  return out;
}

std::vector<double> means(std::span<const double> values, size_t most) {
  const size_t n = values.size(), count = std::min(n, most);
  std::vector<double> out;
  for (size_t c = 0; c < count; ++c) {
    const size_t begin = c * n / count, end = (c + 1) * n / count;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += values[i];
    out.push_back(sum / static_cast<double>(end - begin));
  }
  return out;
}

// 1, 2 or 5 times a power of ten, at least `least`.
double tick_of(double least) {
  if (!(least > 0) || !std::isfinite(least)) return 1;
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double step : {1, 2, 5}) {
    if (step * power >= least * (1 - 1e-9)) return step * power;
  }
  return 10 * power;
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (size_t j = 0; j < 3; ++j) {
      word = word << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0U);
    }
    for (size_t j = 0; j < 4; ++j) {
      out += i + j <= bytes.size() ? kDigits[word >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

std::string heat_png(int64_t width, int64_t height, std::span<const uint8_t> pixels) {
  SW_CHECK(static_cast<int64_t>(pixels.size()) == width * height && width > 0 && height > 0,
           internal, "picture: {} pixels, expected {} x {}", pixels.size(), width, height);
  std::string rows;
  for (int64_t y = 0; y < height; ++y) {
    rows += '\0';  // no filter
    rows.append(reinterpret_cast<const char*>(pixels.data()) + y * width,
                static_cast<size_t>(width));
  }
  const std::string header = big_endian(static_cast<uint32_t>(width)) +
                             big_endian(static_cast<uint32_t>(height)) +
                             std::string("\x08\x03\0\0\0", 5);  // 8 bits, palette
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) + png_chunk("PLTE", palette()) +
         png_chunk("IDAT", deflated(rows)) + png_chunk("IEND", "");
}

uint8_t heat_of(double over_mean) {
  if (!(over_mean > 0)) return 0;
  const double level = (std::log2(over_mean) + 3) / 6;
  // As many colours as an eye can tell; fewer make a smaller picture.
  constexpr double kLevels = 48;
  const double rounded = std::round(std::clamp(level, 0.0, 1.0) * kLevels) / kLevels;
  return static_cast<uint8_t>(1 + std::lround(254 * rounded));
}

std::string bars_svg(std::span<const double> values, double top, double mark, int width,
                     int height) {
  const std::vector<double> bars = means(values, 256);
  std::string path = fmt::format("M0 {}", height);
  for (size_t i = 0; i < bars.size(); ++i) {
    const double y = height * (1 - std::clamp(bars[i] / top, 0.0, 1.0));
    path += fmt::format(
        "V{:.4g}H{:.4g}", y,
        static_cast<double>(width) * static_cast<double>(i + 1) / static_cast<double>(bars.size()));
  }
  const double even = height * (1 - mark / top);
  return fmt::format(
      "<svg class=bars viewBox='0 0 {0} {1}' width={0} height={1} preserveAspectRatio=none>"
      "<path d='{2}V{1}Z'/><line x1=0 x2={0} y1={3:.4g} y2={3:.4g} /></svg>",
      width, height, path, even);
}

std::string lines_svg(std::span<const ChartLine> lines, std::span<const int64_t> steps,
                      double bottom, double top) {
  constexpr int kLeft = 44, kTop = 8, kWidth = 420, kHeight = 150;
  std::vector<std::vector<double>> drawn;
  for (const ChartLine& line : lines) {
    drawn.push_back(means(line.values, 160));
    for (const double value : drawn.back()) {
      if (!std::isfinite(value)) continue;
      bottom = std::min(bottom, value);
      top = std::max(top, value);
    }
  }
  const double tick = tick_of((top - bottom) / 4);
  bottom = std::floor(bottom / tick + 1e-9) * tick + 0.0;  // no minus before a zero
  const auto ticks = std::max(1, static_cast<int>(std::ceil((top - bottom) / tick - 1e-9)));
  top = bottom + tick * ticks;
  std::string text =
      fmt::format("<svg class=lines viewBox='0 0 {} {}'>", kLeft + kWidth + 8, kTop + kHeight + 24);
  for (int i = 0; i <= ticks; ++i) {
    const double y = kTop + kHeight * static_cast<double>(i) / ticks;
    text += fmt::format(
        "<line class=grid x1={} x2={} y1={:.4g} y2={:.4g} /><text x={} y={:.4g} class=y>{}</text>",
        kLeft, kLeft + kWidth, y, y, kLeft - 5, y + 4,
        fmt::format("{:.4g}", i == ticks ? bottom + 0.0 : top - tick * i));
  }
  text += fmt::format("<text x={} y={}>step {}</text><text x={} y={} class=y>{}</text>", kLeft,
                      kTop + kHeight + 16, grouped(steps.front()), kLeft + kWidth,
                      kTop + kHeight + 16, grouped(steps.back()));
  for (size_t l = 0; l < lines.size(); ++l) {
    const std::vector<double>& values = drawn[l];
    std::string points;
    for (size_t i = 0; i < values.size(); ++i) {
      const double x =
          values.size() > 1 ? static_cast<double>(i) / static_cast<double>(values.size() - 1) : 0.5;
      if (!std::isfinite(values[i])) continue;
      const double y = std::clamp((values[i] - bottom) / (top - bottom), 0.0, 1.0);
      points += fmt::format("{:.1f},{:.1f} ", kLeft + x * kWidth, kTop + kHeight * (1 - y));
    }
    text += fmt::format("<polyline points='{}' stroke='{}'><title>{}</title></polyline>", points,
                        lines[l].color, html_escape(lines[l].name));
  }
  return text + "</svg>";
}

}  // namespace sw
