// What the fuzz targets share: inputs as files, and the two things that no input may cause. A
// target is one LLVMFuzzerTestOneInput; libFuzzer runs it in the preset `fuzz`, and in every other
// build replay.cpp runs it over the inputs that are kept.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "tests/support/allocation_peak.h"

namespace sw::fuzz {

/// An unlinked file in memory with this content; its path can be opened any number of times.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : fd_(::memfd_create("input", MFD_CLOEXEC)) {
    pwrite_all(fd_.get(), content.data(), content.size(), 0, "input");
  }
  int fd() const { return fd_.get(); }
  int rewound() const {
    ::lseek(fd_.get(), 0, SEEK_SET);
    return fd_.get();
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

 private:
  FileDescriptor fd_;
};

/// A folder of this process's own, removed at its end; in memory where the system has such a place,
/// since fsync costs nothing there. (HDF5 opens no path under /proc.)
const std::filesystem::path& quick_folder();

/// A finding: says so and ends the process, upon which the fuzzer keeps the input.
[[noreturn]] inline void found(const std::string& what) {
  std::fprintf(stderr, "FOUND: %s\n", what.c_str());
  std::abort();
}

/// What a reader may allocate at a time beyond twice its input: 64 MiB, and 1 MiB of buffers.
constexpr int64_t kReaderBytes = int64_t{65} << 20;

/// Calls `read` and returns whether it took the input. A refusal is any Error but `internal`, which
/// the library throws at its own mistakes; that, and every other exception, is a finding. So are
/// more than `bytes` + 2 x the input's size allocated at a time.
template <class Read>
bool accepts(size_t input_bytes, const Read& read, int64_t bytes = kReaderBytes) {
  const test::AllocationPeak peak;
  bool accepted = true;
  try {
    read();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::internal) found(error.what());
    accepted = false;
  }
  const int64_t bound = bytes + 2 * static_cast<int64_t>(input_bytes);
  if (peak.bytes() > bound) {
    found(fmt::format("{} bytes allocated for an input of {}, at most {}", peak.bytes(),
                      input_bytes, bound));
  }
  return accepted;
}

}  // namespace sw::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
