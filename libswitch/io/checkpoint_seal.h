// The seal behind a checkpoint's HDF5 image: proves, before HDF5 parses anything, that the file is
// complete and that every byte outside the tensors is as it was written. Private to io/.
//
//   image          image_bytes bytes, an HDF5 file
//   extents        n x {u64 begin, u64 end}: ranges of the image that hold tensors, ascending
//   footer, 64 B   0 char8 "SWCKSEAL"   8 u32 version = 1   12 u32 n   16 u64 image_bytes
//                 24 u64 file_bytes    32 u64 hash low     40 u64 hash high   48 u64 0
//                 56 char8 "SWCKEND1"
//
// hash: XXH3-128 over the bytes of the image outside the extents, in order, then the extents, then
// the footer's first 32 bytes. All integers are little-endian.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sw {

/// Bytes [begin, end) of a file.
struct Extent {
  uint64_t begin = 0, end = 0;
  bool operator==(const Extent&) const = default;
};

struct Seal {
  uint64_t image_bytes = 0;
  std::vector<Extent> extents;
};

/// Ranges of tensors [offset, offset + bytes), any order, widened to the alignment and merged.
std::vector<Extent> tensor_extents(std::vector<Extent> tensors, uint64_t image_bytes);

/// The bytes to append to an image of `seal.image_bytes` bytes open as `fd`.
std::string make_seal(int fd, const Seal& seal, const std::string& name);

/// Reads and verifies the seal of an open file. Throws corrupt, or io when reading fails.
Seal check_seal(int fd, const std::string& name);

}  // namespace sw
