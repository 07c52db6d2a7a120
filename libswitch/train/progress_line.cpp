#include "libswitch/train/progress_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace sw {

void ProgressLine::draw(double share, const std::string& text) {
  if (!enabled_ || (ever_ && since_draw_.seconds() < 0.1)) return;
  constexpr int kWidth = 24;
  share = std::clamp(share, 0.0, 1.0);
  const auto full = static_cast<size_t>(share * kWidth);
  std::fputs(
      fmt::format("\r[{:<{}}] {:3.0f}% {}\x1b[K", std::string(full, '#'), kWidth, 100 * share, text)
          .c_str(),
      stderr);
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
