// Writes a checkpoint: one HDF5 file that appears under its name only when it is complete.
//
//   CheckpointWriter writer(folder / checkpoint_file_name(step), entries, meta, telemetry);
//   for (const auto& [path, tensor] : tensors) writer.write_tensor(path, tensor);
//   const CommittedCheckpoint done = writer.finish();
//
// With many ranks, rank 0 constructs as above and sends offsets() to the others, which construct
// the second form; every rank writes the rectangles it owns; the others send their reports() to
// rank 0, which calls finish(reports). The bytes and the digest do not depend on who wrote what.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/tensor/rectangle.h"
#include "libswitch/tensor/tensor.h"

namespace sw {

/// The system calls of a save, replaceable so that tests can make them fail. Semantics and errno as
/// in POSIX; pwrite is called from several threads.
struct FileCalls {
  std::function<ssize_t(int fd, const void* data, size_t bytes, off_t offset)> pwrite;
  std::function<int(int fd)> fsync;
  std::function<int(int fd, off_t bytes)> allocate;  // fallocate(fd, 0, 0, bytes)
  std::function<int(const char* from, const char* to)> rename;
  /// The real calls.
  FileCalls();
};

/// What one writer knows of one tile. Plain data, to be gathered over ranks.
struct TileReport {
  int64_t tile = 0;      // index among all tiles
  int64_t elements = 0;  // elements of the tile that this writer wrote
  uint64_t checksum = 0;
  int64_t checked = 0;  // 1: `checksum` is the whole tile's XXH3-64
};

struct CommittedCheckpoint {
  std::filesystem::path path;
  std::string digest;
  int64_t bytes = 0;
};

class CheckpointWriter {
 public:
  /// Creates `final_path` + ".tmp" with every dataset of the schema in place, metadata and
  /// telemetry written, and disk space reserved. Throws usage (bad schema), cannot_create, io.
  CheckpointWriter(std::filesystem::path final_path, std::vector<TensorEntry> entries,
                   const CheckpointMeta& meta, const Telemetry& telemetry, FileCalls calls = {});
  /// Joins a save that rank 0 began, with the same final path and entries and rank 0's offsets().
  CheckpointWriter(std::filesystem::path final_path, std::vector<TensorEntry> entries,
                   std::span<const uint64_t> offsets, FileCalls calls = {});
  /// Removes the temporary file unless finish() succeeded (rank 0; the others only close).
  ~CheckpointWriter();
  CheckpointWriter(CheckpointWriter&&) noexcept;
  CheckpointWriter& operator=(CheckpointWriter&&) = delete;

  /// Entries in canonical order, and where each begins in the file.
  const std::vector<TensorEntry>& entries() const;
  const std::vector<uint64_t>& offsets() const;

  /// Writes a whole tensor. Throws usage for an unknown path or another dtype or shape, io when the
  /// disk fails.
  void write_tensor(const std::string& path, const Tensor& tensor);
  /// Writes a box of a tensor from `data`, row-major and dense. Every element must be written
  /// exactly once over all writers. Tiles covered whole by one call are checksummed from memory,
  /// others are read back: by read_back(), or else by finish().
  void write_rectangle(const std::string& path, const Rectangle& box, const void* data);

  /// Waits until what was written is on disk: where another machine than rank 0's wrote, whose
  /// caches finish() does not reach, or ahead of it. Throws io.
  void sync();
  /// What this writer wrote, to be sent to rank 0.
  std::vector<TileReport> reports() const;
  /// Checksums of tiles that are written whole, though not in one call, from the file. Throws io.
  std::vector<TileReport> read_back(std::span<const int64_t> tiles) const;

  /// Rank 0, once all ranks have written: fills the tile table and digest, seals, syncs and
  /// renames. `others` are the reports of the other ranks. Throws internal when an element was not
  /// written or written twice, io when the disk fails; the temporary is then removed.
  CommittedCheckpoint finish(std::span<const TileReport> others = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sw
