#include "libswitch/train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/io/checkpoint_folder.h"

namespace sw {

RunDirectory::RunDirectory(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code error;
  made_ = !std::filesystem::exists(path_, error);
  std::filesystem::create_directories(path_ / "checkpoints", error);
  SW_CHECK(!error, cannot_create, "run folder {}: cannot create: {}", path_.string(),
           error.message());
  const std::filesystem::path lock = path_ / ".lock";
  lock_ = FileDescriptor(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  SW_CHECK(lock_.get() >= 0, cannot_create, "run folder {}: cannot write there: {}", path_.string(),
           std::strerror(errno));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    SW_CHECK(errno != EWOULDBLOCK, cannot_create,
             "run folder {}: another process trains there; wait for it, or give another --run",
             path_.string());
    log::warn("run folder {}: cannot be locked ({}); make sure that no other process trains there",
              path_.string(), std::strerror(errno));
  }
  for (const auto& file : remove_temporaries(path_)) {
    log::info("removed {}, left behind by a save that did not finish", file.string());
  }
}

RunDirectory::~RunDirectory() {
  std::error_code error;
  if (!made_ || std::filesystem::exists(config_file(), error)) return;
  for (const auto& entry : std::filesystem::directory_iterator(path_, error)) {
    const std::string name = entry.path().filename().string();
    if (name != ".lock" && name != "checkpoints" && name != "log.txt") return;
  }
  // Only what is empty goes; errors leave the folder as it is.
  if (!std::filesystem::remove(path_ / "checkpoints", error)) return;
  for (const auto& file : {log_file(), path_ / ".lock", path_}) {
    std::filesystem::remove(file, error);
  }
}

std::filesystem::path RunDirectory::checkpoint_file(int64_t step) const {
  return path_ / "checkpoints" / checkpoint_file_name(step);
}

std::optional<std::filesystem::path> RunDirectory::newest_checkpoint() const {
  if (!std::filesystem::exists(path_)) return std::nullopt;
  const auto files = list_checkpoints(path_);
  for (const CheckpointFile& file : files) {
    const std::string fault = checkpoint_fault(file.path);
    if (fault.empty()) return file.path;
    log::warn("{}: passed over: {}", file.path.string(), fault);
  }
  // A folder whose checkpoints are all damaged must not look like one without any.
  SW_CHECK(files.empty(), corrupt,
           "run folder {}: none of its {} checkpoints is whole; restore one, or remove them to "
           "start over",
           path_.string(), files.size());
  return std::nullopt;
}

void RunDirectory::make_checkpoints_folder() const {
  std::error_code error;
  std::filesystem::create_directory(path_ / "checkpoints", error);
}

void RunDirectory::write_config(const std::string& toml) const {
  write_file_atomically(config_file(), toml);
}

void RunDirectory::committed(const std::filesystem::path& checkpoint, int64_t keep) const {
  set_checkpoint_link(path_, "latest", checkpoint);
  for (const auto& file : keep_last(path_, keep)) log::debug("removed {}", file.string());
}

void RunDirectory::set_best(const std::filesystem::path& checkpoint) const {
  set_checkpoint_link(path_, "best", checkpoint);
}

}  // namespace sw
