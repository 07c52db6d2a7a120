// Leveled log on stderr (and optionally a file): "HH:MM:SS level text". stdout never carries a log
// line.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace sw::log {

enum class Level { error, warn, info, debug, trace };

struct Config {
  Level level = Level::info;
  std::string file;    // also append to this file, at level info or finer; empty: none
  bool color = false;  // colour the level on stderr
  int rank = 0;        // rank in the launcher's world; ranks other than 0 log errors only
};

/// Sets up the sinks; may be called again (a run folder adds its log file later). Thread-safe with
/// write().
void configure(const Config& config);
void write(Level level, const std::string& text);
bool enabled(Level level);

template <class... Args>
void error(fmt::format_string<Args...> f, Args&&... args) {
  write(Level::error, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> f, Args&&... args) {
  write(Level::warn, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> f, Args&&... args) {
  write(Level::info, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void debug(fmt::format_string<Args...> f, Args&&... args) {
  if (enabled(Level::debug)) write(Level::debug, fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace sw::log
