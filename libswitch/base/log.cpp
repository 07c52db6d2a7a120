#include "libswitch/base/log.h"

#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <mutex>
#include <vector>

#include "libswitch/base/error.h"

namespace sw::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::error: return spdlog::level::err;
    case Level::warn: return spdlog::level::warn;
    case Level::info: return spdlog::level::info;
    case Level::debug: return spdlog::level::debug;
    case Level::trace: return spdlog::level::trace;
  }
  return spdlog::level::info;
}

std::mutex& logger_mutex() {
  static std::mutex mutex;
  return mutex;
}

std::shared_ptr<spdlog::logger> build(const Config& config) {
  std::vector<spdlog::sink_ptr> sinks;
  const auto level = to_spdlog(config.rank == 0 ? config.level : Level::error);
  spdlog::sink_ptr console;
  if (config.color) {
    console = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>();
  } else {
    console = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  console->set_level(level);
  console->set_pattern("%H:%M:%S %^%l%$ %v");
  sinks.push_back(console);
  auto lowest = level;
  if (!config.file.empty()) {
    std::shared_ptr<spdlog::sinks::basic_file_sink_mt> file;
    try {
      file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(config.file, /*truncate=*/false);
    } catch (const spdlog::spdlog_ex& error) {
      fail(ErrorKind::cannot_create, "log file {}: {}", config.file, error.what());
    }
    file->set_level(std::min(level, spdlog::level::info));
    file->set_pattern("%Y-%m-%dT%H:%M:%S %l %v");
    lowest = std::min(lowest, spdlog::level::info);
    sinks.push_back(file);
  }
  auto logger = std::make_shared<spdlog::logger>("switch", sinks.begin(), sinks.end());
  logger->set_level(lowest);
  logger->flush_on(spdlog::level::info);
  return logger;
}

std::shared_ptr<spdlog::logger>& current() {
  static std::shared_ptr<spdlog::logger> logger = build(Config{});
  return logger;
}

}  // namespace

void configure(const Config& config) {
  std::lock_guard lock(logger_mutex());
  current() = build(config);
}

void write(Level level, const std::string& text) {
  std::shared_ptr<spdlog::logger> logger;
  {
    std::lock_guard lock(logger_mutex());
    logger = current();
  }
  logger->log(to_spdlog(level), "{}", text);
}

bool enabled(Level level) {
  std::lock_guard lock(logger_mutex());
  return current()->should_log(to_spdlog(level));
}

}  // namespace sw::log
