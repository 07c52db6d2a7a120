#include "libswitch/io/zip_file.h"

#include <algorithm>
#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/io/json_text.h"

namespace sw {
namespace {

constexpr uint64_t kMaxDirectory = uint64_t{32} << 20;
constexpr uint64_t kMaxEntries = 300'000;
constexpr size_t kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20, kCentralBytes = 46,
                 kLocalBytes = 30;

// Little-endian numbers of a block of bytes, which the caller has seen to be long enough.
uint64_t number(const char* at, size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, at, bytes);
  return value;
}
uint64_t u16(const char* at) { return number(at, 2); }
uint64_t u32(const char* at) { return number(at, 4); }
uint64_t u64(const char* at) { return number(at, 8); }

struct Directory {
  uint64_t offset = 0, bytes = 0, entries = 0;
};

class ZipReader {
 public:
  ZipReader(int fd, uint64_t file_bytes, const std::string& name)
      : fd_(fd), file_bytes_(file_bytes), name_(name) {}

  std::vector<ZipEntry> read() {
    const Directory directory = find_directory();
    SW_CHECK(directory.bytes <= kMaxDirectory && directory.entries <= kMaxEntries, corrupt,
             "{}: a directory of {} bytes and {} entries, at most {} and {}", name_,
             directory.bytes, directory.entries, kMaxDirectory, kMaxEntries);
    check_inside("the directory", directory.offset, directory.bytes);
    SW_CHECK(directory.entries <= directory.bytes / kCentralBytes, corrupt,
             "{}: a directory of {} bytes cannot have {} entries", name_, directory.bytes,
             directory.entries);
    std::string bytes(directory.bytes, '\0');
    pread_all(fd_, bytes.data(), bytes.size(), directory.offset, name_);
    std::vector<ZipEntry> entries;
    entries.reserve(directory.entries);
    size_t at = 0;
    for (uint64_t i = 0; i < directory.entries; ++i) entries.push_back(take_entry(bytes, at));
    check_apart(entries, directory.offset);
    std::sort(entries.begin(), entries.end(),
              [](const ZipEntry& a, const ZipEntry& b) { return a.name < b.name; });
    for (size_t i = 1; i < entries.size(); ++i) {
      SW_CHECK(entries[i].name != entries[i - 1].name, corrupt, "{}: entry {} is there twice",
               name_, shown(entries[i].name));
    }
    return entries;
  }

 private:
  void check_inside(const std::string& what, uint64_t offset, uint64_t bytes) const {
    SW_CHECK(offset <= file_bytes_ && bytes <= file_bytes_ - offset, corrupt,
             "{}: {} lies at bytes [{}, {} + {}) of a file of {}: cut short or damaged", name_,
             what, offset, offset, bytes, file_bytes_);
  }

  // The end record is the last thing in the file but for a comment; in a zip64 file a locator in
  // front of it leads to a record with wider fields.
  Directory find_directory() const {
    const uint64_t tail_bytes = std::min<uint64_t>(file_bytes_, kEndBytes + 65535);
    SW_CHECK(tail_bytes >= kEndBytes, corrupt, "{}: {} bytes are no zip file", name_, file_bytes_);
    std::string tail(tail_bytes, '\0');
    const uint64_t tail_offset = file_bytes_ - tail_bytes;
    pread_all(fd_, tail.data(), tail.size(), tail_offset, name_);
    size_t at = tail.size() - kEndBytes;
    while (u32(&tail[at]) != 0x06054b50 || at + kEndBytes + u16(&tail[at + 20]) != tail.size()) {
      SW_CHECK(at-- > 0, corrupt, "{}: no end of a zip directory: not a zip file, or cut short",
               name_);
    }
    const char* end = &tail[at];
    Directory directory{u32(end + 16), u32(end + 12), u16(end + 10)};
    SW_CHECK(u16(end + 4) == 0 || u16(end + 4) == 0xffff, corrupt,
             "{}: a zip file in several parts", name_);
    if (at < kLocatorBytes || u32(end - kLocatorBytes) != 0x07064b50) return directory;
    const uint64_t offset = u64(end - kLocatorBytes + 8);
    check_inside("the zip64 record", offset, kEnd64Bytes);
    char record[kEnd64Bytes];
    pread_all(fd_, record, sizeof record, offset, name_);
    SW_CHECK(u32(record) == 0x06064b50, corrupt, "{}: no zip64 record at byte {}", name_, offset);
    return {u64(record + 48), u64(record + 40), u64(record + 32)};
  }

  ZipEntry take_entry(const std::string& bytes, size_t& at) const {
    SW_CHECK(bytes.size() - at >= kCentralBytes && u32(&bytes[at]) == 0x02014b50, corrupt,
             "{}: the zip directory is damaged at its byte {}", name_, at);
    const char* head = &bytes[at];
    const uint64_t flags = u16(head + 8), method = u16(head + 10);
    uint64_t packed = u32(head + 20), plain = u32(head + 24), local = u32(head + 42);
    const size_t name_bytes = u16(head + 28), extra_bytes = u16(head + 30),
                 comment_bytes = u16(head + 32);
    const size_t whole = kCentralBytes + name_bytes + extra_bytes + comment_bytes;
    SW_CHECK(bytes.size() - at >= whole, corrupt, "{}: the zip directory is damaged at its byte {}",
             name_, at);
    ZipEntry entry;
    entry.name = bytes.substr(at + kCentralBytes, name_bytes);
    take_wide_fields(bytes.substr(at + kCentralBytes + name_bytes, extra_bytes), plain, packed,
                     local);
    at += whole;
    SW_CHECK((flags & 1) == 0, corrupt, "{}: entry {} is encrypted", name_, shown(entry.name));
    SW_CHECK(method == 0 && packed == plain, corrupt,
             "{}: entry {} is compressed, expected stored as torch.save writes it", name_,
             shown(entry.name));
    check_inside("entry " + shown(entry.name), local, kLocalBytes);
    char header[kLocalBytes];
    pread_all(fd_, header, sizeof header, local, name_);
    SW_CHECK(u32(header) == 0x04034b50, corrupt, "{}: no entry {} at byte {}", name_,
             shown(entry.name), local);
    entry.offset = local + kLocalBytes + u16(header + 26) + u16(header + 28);
    entry.bytes = plain;
    check_inside("entry " + shown(entry.name), entry.offset, entry.bytes);
    return entry;
  }

  // Field 1 of the extra data holds, in this order, what did not fit 32 bits.
  void take_wide_fields(const std::string& extra, uint64_t& plain, uint64_t& packed,
                        uint64_t& local) const {
    for (size_t at = 0; at + 4 <= extra.size();) {
      const uint64_t id = u16(&extra[at]);
      const size_t bytes = u16(&extra[at + 2]);
      SW_CHECK(bytes <= extra.size() - at - 4, corrupt, "{}: damaged extra data of a zip entry",
               name_);
      size_t field = at + 4;
      for (uint64_t* value : {&plain, &packed, &local}) {
        if (id != 1 || *value != 0xffffffff) continue;
        SW_CHECK(field + 8 <= at + 4 + bytes, corrupt, "{}: damaged zip64 sizes", name_);
        *value = u64(&extra[field]);
        field += 8;
      }
      at += 4 + bytes;
    }
  }

  // Entries that share bytes are how a small file claims to be a large one.
  void check_apart(const std::vector<ZipEntry>& entries, uint64_t directory) const {
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (const ZipEntry& entry : entries) {
      ranges.emplace_back(entry.offset, entry.offset + entry.bytes);
    }
    std::sort(ranges.begin(), ranges.end());
    for (size_t i = 0; i < ranges.size(); ++i) {
      SW_CHECK(ranges[i].second <= (i + 1 < ranges.size() ? ranges[i + 1].first : directory),
               corrupt, "{}: zip entries overlap at byte {}", name_, ranges[i].second);
    }
  }

  int fd_;
  uint64_t file_bytes_;
  const std::string& name_;
};

}  // namespace

std::vector<ZipEntry> read_zip_directory(int fd, uint64_t file_bytes, const std::string& name) {
  return ZipReader(fd, file_bytes, name).read();
}

}  // namespace sw
