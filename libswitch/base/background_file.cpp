#include "libswitch/base/background_file.h"

#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/log.h"

namespace sw {

struct BackgroundFile::State {
  std::string name;
  FileDescriptor fd;
  std::mutex mutex;
  std::condition_variable changed;
  std::string waiting;
  bool closing = false, done = false, failed = false, warned = false;

  void write_until_closed() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return closing || !waiting.empty(); });
      if (waiting.empty()) break;
      std::string bytes;
      bytes.swap(waiting);
      lock.unlock();
      std::string error;
      try {
        write_all(fd.get(), bytes.data(), bytes.size(), name);
      } catch (const Error& thrown) {
        error = thrown.what();
      }
      lock.lock();
      if (error.empty()) continue;
      // Part of the bytes may be in the file: anything after them could not be read.
      failed = true;
      if (!std::exchange(warned, true)) log::warn("{}; nothing more is written there", error);
      waiting.clear();
    }
    done = true;
    changed.notify_all();
  }
};

BackgroundFile::BackgroundFile(const std::filesystem::path& path)
    : state_(std::make_shared<State>()) {
  state_->name = path.string();
  state_->fd = FileDescriptor(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666));
  SW_CHECK(state_->fd.get() >= 0, cannot_create, "{}: cannot create: {}", path.string(),
           std::strerror(errno));
  std::thread([state = state_] { state->write_until_closed(); }).detach();
}

BackgroundFile::~BackgroundFile() {
  std::unique_lock lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
  const bool done = state_->changed.wait_for(lock, std::chrono::duration<double>(kPatience),
                                             [&] { return state_->done; });
  if (!done) log::warn("{}: the disk does not answer; its last lines may be lost", state_->name);
}

void BackgroundFile::append(std::string bytes) {
  const std::lock_guard lock(state_->mutex);
  if (state_->failed) return;
  if (static_cast<int64_t>(state_->waiting.size() + bytes.size()) > kMaxWaiting) {
    if (!std::exchange(state_->warned, true)) {
      log::warn("{}: the disk is too slow; some of it is left out", state_->name);
    }
    return;
  }
  state_->waiting += bytes;
  state_->changed.notify_all();
}

}  // namespace sw
