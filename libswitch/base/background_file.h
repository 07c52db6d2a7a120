// A file that is written by a thread of its own, so that nobody waits for its disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace sw {

class BackgroundFile {
 public:
  /// Bytes that may wait to be written.
  static constexpr int64_t kMaxWaiting = int64_t{16} << 20;
  /// Seconds that the destructor waits for a disk that does not answer.
  static constexpr double kPatience = 5;

  /// Creates the file, which must not exist. Throws cannot_create.
  explicit BackgroundFile(const std::filesystem::path& path);
  /// Writes what waits. A disk that takes longer than kPatience is left alone.
  ~BackgroundFile();
  BackgroundFile(const BackgroundFile&) = delete;
  BackgroundFile& operator=(const BackgroundFile&) = delete;

  /// Appends all of `bytes`, soon, or none of them: when too much waits already, or after an error
  /// of the disk. The first time a warning says so.
  void append(std::string bytes);

 private:
  struct State;
  std::shared_ptr<State> state_;  // the thread's too, which may outlive this
};

}  // namespace sw
