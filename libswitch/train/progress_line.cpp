#include "libswitch/train/progress_line.h"

#include <unistd.h>

#include <cstdio>

#include "libswitch/base/terminal.h"

namespace sw {

void ProgressLine::draw(double share, const std::string& text) {
  if (!enabled_ || (ever_ && since_draw_.seconds() < 0.1)) return;
  const std::string line = progress_bar(share, text, terminal_columns(STDERR_FILENO));
  std::fputs(("\r" + line + "\x1b[K").c_str(), stderr);
  std::fflush(stderr);
  drawn_ = ever_ = true;
  since_draw_.restart();
}

void ProgressLine::clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace sw
