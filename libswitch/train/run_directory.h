// The run folder: config.toml, metrics.jsonl, log.txt, checkpoints/, latest; on request
// tensorboard/, best.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "libswitch/base/file.h"

namespace sw {

class RunDirectory {
 public:
  /// Creates the folder where needed, takes it for this process (one training at a time writes
  /// there) and removes what a killed save left behind. Throws cannot_create.
  explicit RunDirectory(std::filesystem::path path);
  /// The folder that another rank of this run has taken, or that is only looked at (it need not
  /// exist).
  struct Joined {};
  RunDirectory(std::filesystem::path path, Joined) : path_(std::move(path)) {}
  /// Removes a folder that this object has made when nothing came into it but a log: what a start
  /// that failed leaves behind would only be in the way.
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_file() const { return path_ / "config.toml"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path log_file() const { return path_ / "log.txt"; }
  std::filesystem::path tensorboard_folder() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoint_file(int64_t step) const;

  /// The newest whole checkpoint, if there is any.
  std::optional<std::filesystem::path> newest_checkpoint() const;
  /// Makes the folder of the checkpoints again where somebody removed it. No errors: the save that
  /// follows has them.
  void make_checkpoints_folder() const;
  void write_config(const std::string& toml) const;
  /// After a commit: moves `latest` and removes checkpoints beyond the `keep` newest.
  void committed(const std::filesystem::path& checkpoint, int64_t keep) const;
  /// Points `best` at a checkpoint, which then stays.
  void set_best(const std::filesystem::path& checkpoint) const;

 private:
  std::filesystem::path path_;
  FileDescriptor lock_;
  bool made_ = false;
};

}  // namespace sw
