// Figures as text and pictures made of block characters, for terminals.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace sw {

/// Columns that a report for people takes at most.
inline constexpr int kReportColumns = 80;

/// One block character per value (U+2581 to U+2588), `top` being a full block; a value of 0 or
/// below is a dot. More values than `columns` are averaged in runs of equal length.
std::string sparkline(std::span<const double> values, double top, int columns);
/// The same from `bottom`, the lowest block, to `top`; a value that is not finite is a dot.
std::string sparkline_between(std::span<const double> values, double bottom, double top,
                              int columns);
/// A bar of `value` of `top` in at most `columns`, to an eighth of a column.
std::string bar(double value, double top, int columns);

/// In ANSI colour `code` ("31"), where wanted.
std::string paint(const std::string& text, const char* code, bool color);
/// Filled up with spaces to `width` columns, on the right or on the left.
std::string pad(const std::string& text, int width);
std::string pad_left(const std::string& text, int width);
/// The end, or the beginning, of `text` in at most `width` columns.
std::string shorten(const std::string& text, int width);
std::string cut(const std::string& text, int width);

/// "-" where it is not finite; four digits or so.
std::string number(double value, int decimals);
/// "12.5%".
std::string percent(double share);
/// "41,000".
std::string grouped(int64_t value);
int digits(int64_t value);

}  // namespace sw
