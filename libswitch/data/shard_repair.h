// Whole-file work on token shards: check, mend, copy from a pipe.
#pragma once

#include <cstdint>
#include <filesystem>

namespace sw {

struct ShardTotals {
  uint64_t tokens = 0, documents = 0, bytes = 0;
  int64_t blocks = 0, segments = 0;
};

/// Reads and checks every byte; "-" is standard input. Throws corrupt for the first fault.
ShardTotals verify_shard(const std::filesystem::path& path);

struct RepairReport {
  bool changed = false;  // false: the file was whole and was left alone
  int64_t kept_blocks = 0;
  int64_t dropped_blocks = 0;  // blocks whose data did not check
  uint64_t dropped_bytes = 0;  // bytes of the old file that are not in the new one
  uint64_t kept_tokens = 0;
  std::filesystem::path original;  // where the old file went
};

/// Keeps the blocks that are whole, drops a torn tail and blocks whose data do not check, and
/// rebuilds the indices. The old file is kept as `path` + ".damaged"; the new one replaces it in
/// one step. Throws corrupt when not even the first header can be read, cannot_create when the
/// ".damaged" name is taken.
RepairReport repair_shard(const std::filesystem::path& path);

/// Copies a shard from standard input to `path`, checking it on the way; the file appears when the
/// stream was whole. Gives a stream the random access that shuffling and resuming need.
ShardTotals spool_stdin(const std::filesystem::path& path);
/// The same from any descriptor; `name` stands in messages.
ShardTotals spool_shard(int fd, const std::string& name, const std::filesystem::path& path);

}  // namespace sw
