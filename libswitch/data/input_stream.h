// Bytes of a file or of standard input, decompressed on the way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace sw {

/// A forward stream over plain, gzip (any number of members) or zstd (any number of frames)
/// content, told apart by their first bytes. Memory is constant: a zstd window is limited to
/// 128 MiB, the limit of the zstd tool itself.
class InputStream {
 public:
  virtual ~InputStream() = default;

  /// Opens `path`; "-" is standard input. Throws missing or io; usage for a token shard and for
  /// compressions that are not read (xz, bzip2, zip), with the command that decompresses them.
  static std::unique_ptr<InputStream> open(const std::filesystem::path& path);

  /// Reads at most `bytes` bytes; 0 at the end. Throws io, or corrupt for a damaged or truncated
  /// archive.
  virtual int64_t read(char* out, int64_t bytes) = 0;
};

}  // namespace sw
