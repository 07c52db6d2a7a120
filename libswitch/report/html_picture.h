// Pieces of a page that needs nothing from outside: text, pictures in base64, charts in SVG.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

/// With &, <, >, " and ' as entities.
std::string html_escape(std::string_view text);

std::string base64(std::string_view bytes);

/// A PNG of width · height pixels, each an index into a palette of 256 colours: 0 is kZeroColor,
/// 1 to 255 go from dark blue over green to yellow (the colours of viridis).
std::string heat_png(int64_t width, int64_t height, std::span<const uint8_t> pixels);
inline constexpr const char* kZeroColor = "#c8321e";
/// The pixel of a load over the mean: 0 for no load, else by its logarithm from 1/8 to 8.
uint8_t heat_of(double over_mean);

/// Columns of `values` from 0 to `top`, with a line at `mark`; more than 256 are averaged.
std::string bars_svg(std::span<const double> values, double top, double mark, int width,
                     int height);

struct ChartLine {
  std::string name, color;
  std::vector<double> values;  // [T]
};
/// Lines over `steps` [T], on a scale that takes in `bottom` and `top`; more than 160 points are
/// averaged.
std::string lines_svg(std::span<const ChartLine> lines, std::span<const int64_t> steps,
                      double bottom, double top);

}  // namespace sw
