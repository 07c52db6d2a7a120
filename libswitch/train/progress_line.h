// A progress bar on a terminal, redrawn in place on stderr.
#pragma once

#include <cstdint>
#include <string>

#include "libswitch/base/timer.h"

namespace sw {

class ProgressLine {
 public:
  explicit ProgressLine(bool enabled) : enabled_(enabled) {}
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Draws "[#####     ]  42% text", some ten times a second at most.
  void draw(double share, const std::string& text);
  /// Takes the bar away, so that a line of the log can be written.
  void clear();

 private:
  bool enabled_;
  bool drawn_ = false, ever_ = false;
  Timer since_draw_;
};

}  // namespace sw
