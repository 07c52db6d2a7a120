// Numbers as people type them: sizes with K, M, G and durations such as 1h30m.
//
// K, M, G, T are powers of 1000 and Ki, Mi, Gi, Ti powers of 1024, for counts and bytes alike.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sw {

/// Why a text is not the number asked for.
enum class UnitProblem { none, malformed, fraction, overflow };

template <class T>
struct UnitResult {
  T value{};
  UnitProblem problem = UnitProblem::none;
  explicit operator bool() const { return problem == UnitProblem::none; }
};

/// "4096", "-1", "64K", "2Gi", "1.5M", "1e6": exact, or a problem ("1.5" is a fraction, "9e9G" an
/// overflow of 64 bits).
UnitResult<int64_t> parse_integer(std::string_view text);

/// A finite decimal number, with the same suffixes: "0.1", "1e-3", "2.5K".
UnitResult<double> parse_number(std::string_view text);

/// Seconds from "90", "1.5h", "1h30m", "2d", "250ms": units d, h, m, s, ms, each at most once, from
/// the longest to the shortest. Never negative.
UnitResult<double> parse_duration(std::string_view text);

/// The shortest text that parse_duration() reads back as exactly `seconds` (>= 0, finite):
/// 5400 -> "1h30m".
std::string format_duration(double seconds);

}  // namespace sw
