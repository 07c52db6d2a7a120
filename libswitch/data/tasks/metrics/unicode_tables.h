// What Unicode says of code points from U+0080 on, as far as metrics of text need it.
#pragma once

#include <cstdint>
#include <span>

namespace sw {

/// Every `step`-th code point from `first` to `last` has its lower case `distance` further on.
struct CaseRun {
  uint32_t first, last, step;
  int32_t distance;
};
/// In ascending order. Without U+0130, whose lower case is two code points.
std::span<const CaseRun> lower_case_runs();

struct CodePointRange {
  uint32_t first, last;
};
/// Letters, digits and other numbers, in ascending order.
std::span<const CodePointRange> alphanumeric_ranges();
/// Letters that have case, but for those that case ignores.
std::span<const CodePointRange> cased_ranges();
/// What case looks through: accents, marks, modifiers.
std::span<const CodePointRange> case_ignorable_ranges();

}  // namespace sw
