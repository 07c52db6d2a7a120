// Zip archives whose entries are stored, not compressed: what torch.save writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sw {

struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  // of its bytes in the file
  uint64_t bytes = 0;
};

/// The entries of a zip file (zip64 too), sorted by name. Throws corrupt, beginning with `name`,
/// for a file that is none, a compressed or encrypted entry, entries that overlap or reach beyond
/// the file, and a name that occurs twice. Reads directory and local headers only.
std::vector<ZipEntry> read_zip_directory(int fd, uint64_t file_bytes, const std::string& name);

}  // namespace sw
