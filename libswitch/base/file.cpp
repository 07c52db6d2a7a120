#include "libswitch/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "libswitch/base/error.h"

namespace sw {

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.release();
  }
  return *this;
}
FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}
int FileDescriptor::release() { return std::exchange(fd_, -1); }

FileDescriptor open_for_read(const std::filesystem::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    const int code = errno;
    fail(code == ENOENT || code == ENOTDIR ? ErrorKind::missing : ErrorKind::io,
         "{}: cannot open: {}", path.string(), std::strerror(code));
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) == 0 && S_ISDIR(info.st_mode)) {
    fail(ErrorKind::missing, "{}: is a folder, expected a file", path.string());
  }
  return fd;
}

std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  const FileDescriptor fd = open_for_read(path);
  std::string content;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::io, "{}: read failed: {}", path.string(), std::strerror(errno));
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > max_bytes) {
      fail(ErrorKind::corrupt, "{}: larger than the {} bytes such a file may have", path.string(),
           max_bytes);
    }
  }
}

void pread_all(int fd, void* data, size_t bytes, uint64_t offset, const std::string& name) {
  auto* p = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pread(fd, p, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail(ErrorKind::io, "{}: read at offset {} failed: {}", name, offset, std::strerror(errno));
    if (n == 0)
      fail(ErrorKind::corrupt, "{}: file ends at offset {}, {} more bytes expected", name, offset,
           bytes);
    p += n, offset += static_cast<uint64_t>(n), bytes -= static_cast<size_t>(n);
  }
}

void pwrite_all(int fd, const void* data, size_t bytes, uint64_t offset, const std::string& name) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd, p, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail(ErrorKind::io, "{}: write at offset {} failed: {}", name, offset, std::strerror(errno));
    p += n, offset += static_cast<uint64_t>(n), bytes -= static_cast<size_t>(n);
  }
}

void write_all(int fd, const void* data, size_t bytes, const std::string& name) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::io, "{}: write failed: {}", name, std::strerror(errno));
    p += n, bytes -= static_cast<size_t>(n);
  }
}

void fsync_path(const std::filesystem::path& path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) {
    fail(ErrorKind::io, "{}: cannot sync to disk: {}", path.string(), std::strerror(errno));
  }
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  AtomicFile file(path);
  write_all(file.fd(), content.data(), content.size(), file.temporary_path().string());
  file.commit();
}

namespace {

// The empty file `path`, held against other writers of it until it is closed; none (with errno)
// where it cannot be made. A killed writer's lock goes with it, its file is taken over.
FileDescriptor open_locked(const std::filesystem::path& path, const std::string& wanted) {
  for (;;) {
    FileDescriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (fd.get() < 0) return fd;
    // Some file systems have no locks: errors other than this one do not keep from writing.
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      fail(ErrorKind::cannot_create,
           "{}: cannot create: another process is writing it; wait for it, or give another name",
           wanted);
    }
    // Another writer may have renamed or removed it before the lock was had.
    struct stat own {
    }, named{};
    if (::fstat(fd.get(), &own) != 0) return {};
    if (::stat(path.c_str(), &named) != 0 || own.st_ino != named.st_ino ||
        own.st_dev != named.st_dev) {
      continue;
    }
    if (::ftruncate(fd.get(), 0) != 0) return {};
    return fd;
  }
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_type type = fs::status(path_, error).type();
  if (type == fs::file_type::directory) {
    fail(ErrorKind::cannot_create, "{}: is a folder; name a file in it", path_.string());
  }
  if (type == fs::file_type::regular && fs::is_symlink(path_, error)) {
    path_ = fs::canonical(path_, error);
  }
  const bool replaces = !fs::exists(path_, error) || type == fs::file_type::regular;
  temporary_ = replaces ? path_.string() + ".tmp" : path_.string();
  fd_ = replaces ? open_locked(temporary_, path_.string())
                 : FileDescriptor(::open(temporary_.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd_.get() >= 0) return;
  const int code = errno;
  const fs::path folder = path_.parent_path();
  if (code == ENOENT && !folder.empty() && !fs::exists(folder, error)) {
    fail(ErrorKind::cannot_create, "{}: cannot create: there is no folder {}; make it first",
         path_.string(), folder.string());
  }
  fail(ErrorKind::cannot_create, "{}: cannot create: {}", path_.string(), std::strerror(code));
}

AtomicFile::~AtomicFile() {
  if (fd_.get() >= 0 && !writes_through()) ::unlink(temporary_.c_str());
}

void AtomicFile::commit() {
  if (writes_through()) {
    fd_ = FileDescriptor();
    return;
  }
  if (::fsync(fd_.get()) != 0)
    fail(ErrorKind::io, "{}: cannot sync to disk: {}", temporary_.string(), std::strerror(errno));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail(ErrorKind::io, "{}: cannot rename {} to it: {}", path_.string(), temporary_.string(),
         std::strerror(errno));
  }
  fd_ = FileDescriptor();
  fsync_path(path_.has_parent_path() ? path_.parent_path() : std::filesystem::path("."));
}

}  // namespace sw
