#include "libswitch/base/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>

namespace sw {

int terminal_columns(int fd) {
  struct winsize size {};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string_view fit_columns(std::string_view text, int columns) {
  return text.substr(0, static_cast<size_t>(std::max(columns - 1, 1)));
}

std::string progress_bar(double share, std::string_view text, int columns) {
  constexpr int kWidest = 24, kNarrowest = 6;
  share = std::clamp(share, 0.0, 1.0);
  const std::string label = fmt::format("{:3.0f}% {}", 100 * share, text);
  const int room = columns - 1 - static_cast<int>(label.size()) - 3;  // "[", "] "
  if (room < kNarrowest) return std::string(fit_columns(label, columns));
  const int width = std::min(room, kWidest);
  const auto full = static_cast<size_t>(share * width);
  return fmt::format("[{:<{}}] {}", std::string(full, '#'), width, label);
}

}  // namespace sw
