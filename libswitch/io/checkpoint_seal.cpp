#include "libswitch/io/checkpoint_seal.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/hash.h"
#include "libswitch/io/checkpoint_format.h"

namespace sw {
namespace {

struct Footer {
  char begin[8];
  uint32_t version;
  uint32_t extents;
  uint64_t image_bytes;
  uint64_t file_bytes;
  uint64_t hash_low, hash_high;
  uint64_t zero;
  char end[8];
};
static_assert(sizeof(Footer) == 64);
constexpr size_t kHashedFooter = 32;
constexpr char kBegin[9] = "SWCKSEAL", kEnd[9] = "SWCKEND1";

void hash_range(Hash128Stream& hash, int fd, uint64_t begin, uint64_t end, std::string& buffer,
                const std::string& name) {
  while (begin < end) {
    const size_t bytes = static_cast<size_t>(std::min<uint64_t>(end - begin, buffer.size()));
    pread_all(fd, buffer.data(), bytes, begin, name);
    hash.update(buffer.data(), bytes);
    begin += bytes;
  }
}

Hash128 seal_hash(int fd, const Seal& seal, const Footer& footer, const std::string& name) {
  Hash128Stream hash;
  std::string buffer(size_t{1} << 20, '\0');
  uint64_t at = 0;
  for (const Extent& extent : seal.extents) {
    hash_range(hash, fd, at, extent.begin, buffer, name);
    at = extent.end;
  }
  hash_range(hash, fd, at, seal.image_bytes, buffer, name);
  hash.update(seal.extents.data(), seal.extents.size() * sizeof(Extent));
  hash.update(&footer, kHashedFooter);
  return hash.digest();
}

}  // namespace

std::vector<Extent> tensor_extents(std::vector<Extent> tensors, uint64_t image_bytes) {
  constexpr uint64_t kUnit = checkpoint_format::kAlignment;
  std::sort(tensors.begin(), tensors.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  std::vector<Extent> out;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t next = i + 1 < tensors.size() ? tensors[i + 1].begin : image_bytes;
    const uint64_t rounded = (tensors[i].end + kUnit - 1) / kUnit * kUnit;
    const Extent extent{tensors[i].begin,
                        std::min({rounded, std::max(next, tensors[i].end), image_bytes})};
    if (!out.empty() && out.back().end == extent.begin) {
      out.back().end = extent.end;
    } else {
      out.push_back(extent);
    }
  }
  return out;
}

std::string make_seal(int fd, const Seal& seal, const std::string& name) {
  Footer footer{};
  std::memcpy(footer.begin, kBegin, 8);
  std::memcpy(footer.end, kEnd, 8);
  footer.version = 1;
  footer.extents = static_cast<uint32_t>(seal.extents.size());
  footer.image_bytes = seal.image_bytes;
  footer.file_bytes = seal.image_bytes + seal.extents.size() * sizeof(Extent) + sizeof(Footer);
  const Hash128 hash = seal_hash(fd, seal, footer, name);
  footer.hash_low = hash.low, footer.hash_high = hash.high;
  std::string out(reinterpret_cast<const char*>(seal.extents.data()),
                  seal.extents.size() * sizeof(Extent));
  out.append(reinterpret_cast<const char*>(&footer), sizeof footer);
  return out;
}

Seal check_seal(int fd, const std::string& name) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail(ErrorKind::io, "{}: {}", name, std::strerror(errno));
  SW_CHECK(S_ISREG(info.st_mode), corrupt, "{}: not a regular file", name);
  const auto file_bytes = static_cast<uint64_t>(info.st_size);
  Footer footer{};
  if (file_bytes >= sizeof footer) {
    pread_all(fd, &footer, sizeof footer, file_bytes - sizeof footer, name);
  }
  SW_CHECK(file_bytes > 0, corrupt, "{}: empty file, expected a checkpoint", name);
  SW_CHECK(
      std::memcmp(footer.end, kEnd, 8) == 0 && std::memcmp(footer.begin, kBegin, 8) == 0, corrupt,
      "{}: no seal at the end: not a checkpoint of this toolkit, or cut short (the file has {} "
      "bytes)",
      name, file_bytes);
  SW_CHECK(footer.version == 1 && footer.zero == 0, corrupt,
           "{}: seal of version {}, expected 1 (written by a later release, or damaged)", name,
           footer.version);
  const uint64_t table_bytes = uint64_t{footer.extents} * sizeof(Extent);
  SW_CHECK(footer.file_bytes == file_bytes && footer.image_bytes <= file_bytes &&
               file_bytes - footer.image_bytes == table_bytes + sizeof footer,
           corrupt, "{}: expected {} bytes, got {}: cut short or appended to", name,
           footer.file_bytes, file_bytes);
  Seal seal;
  seal.image_bytes = footer.image_bytes;
  seal.extents.resize(footer.extents);
  if (table_bytes > 0) {
    pread_all(fd, seal.extents.data(), table_bytes, footer.image_bytes, name);
  }
  uint64_t at = 0;
  for (const Extent& extent : seal.extents) {
    SW_CHECK(extent.begin >= at && extent.end > extent.begin && extent.end <= seal.image_bytes,
             corrupt, "{}: the seal's table of extents is damaged", name);
    at = extent.end;
  }
  const Hash128 hash = seal_hash(fd, seal, footer, name);
  SW_CHECK(
      hash.low == footer.hash_low && hash.high == footer.hash_high, corrupt,
      "{}: metadata does not match its checksum: the file was damaged, or changed after it was "
      "written",
      name);
  return seal;
}

}  // namespace sw
