// Files: whole-file reads, atomic replacement, checked descriptors. Every failure names the path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace sw {

/// Owner of a POSIX file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int get() const { return fd_; }
  int release();

 private:
  int fd_ = -1;
};

/// Opens for reading; throws missing (not there, or a folder) or io.
FileDescriptor open_for_read(const std::filesystem::path& path);

/// Whole content. Throws missing / io, or corrupt when larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{1} << 40);

/// Reads or writes exactly `bytes` at `offset`; short reads are `corrupt`, errors `io`. `name` is
/// for messages.
void pread_all(int fd, void* data, size_t bytes, uint64_t offset, const std::string& name);
void pwrite_all(int fd, const void* data, size_t bytes, uint64_t offset, const std::string& name);
void write_all(int fd, const void* data, size_t bytes, const std::string& name);

/// fsync of a file or folder by path.
void fsync_path(const std::filesystem::path& path);

/// Writes a sibling temporary file, fsyncs, renames over `path`, fsyncs the folder: a reader sees
/// the old content or the new, never a part.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// A file that appears under its name only when commit() is called; removed otherwise. A link is
/// followed. A device or pipe is written to as it is: nothing may take its place.
class AtomicFile {
 public:
  /// Creates `path` + ".tmp", or takes over what a killed process left there; throws cannot_create,
  /// also while another writer has it.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  int fd() const { return fd_.get(); }
  const std::filesystem::path& temporary_path() const { return temporary_; }
  /// fsync, rename, fsync of the folder. Throws io.
  void commit();

 private:
  bool writes_through() const { return temporary_ == path_; }

  std::filesystem::path path_, temporary_;
  FileDescriptor fd_;
};

}  // namespace sw
