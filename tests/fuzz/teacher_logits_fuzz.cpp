// Files of teacher logits: a byte of flags, the header without its padding, then the records. Since
// checksums keep every mutation out, the flags say which of them are set right: 1 the header's, 2
// the records', 4 the hashes of the targets. What is read is written again, to the same bytes.
#include "libswitch/train/teacher_logits.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "libswitch/base/hash.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using namespace sw;

constexpr size_t kHeaderBytes = 4096, kHeaderUsed = 72, kChecked = 64;
constexpr int64_t kReadRows = 3;

struct Sizes {
  int64_t positions = 0, largest = 0, record = 0;
};

// What the header says, where a file of `bytes` could hold a record of that.
Sizes sizes_of(const std::string& file, int64_t bytes) {
  Sizes sizes;
  std::memcpy(&sizes.positions, file.data() + 8, 8);
  std::memcpy(&sizes.largest, file.data() + 16, 8);
  const bool sane = sizes.positions > 0 && sizes.positions <= bytes && sizes.largest > 0 &&
                    sizes.largest <= bytes && sizes.positions <= bytes / sizes.largest;
  if (!sane) return {};
  sizes.record = 16 + 8 * sizes.positions * sizes.largest;
  return sizes;
}

void put_hash(std::string& file, size_t at, uint64_t hash) { std::memcpy(&file[at], &hash, 8); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw::fuzz;
  if (size < 1 + kHeaderUsed) return 0;
  const uint8_t flags = data[0];
  std::string file(reinterpret_cast<const char*>(data) + 1, kHeaderUsed);
  file.resize(kHeaderBytes);
  file.append(reinterpret_cast<const char*>(data) + 1 + kHeaderUsed, size - 1 - kHeaderUsed);
  if (flags & 1) put_hash(file, kChecked, xxh3_64(file.data(), kChecked));
  const Sizes sizes = sizes_of(file, static_cast<int64_t>(file.size()));
  const std::vector<int32_t> ids(static_cast<size_t>(kReadRows * sizes.positions), 7);
  if (sizes.record > 0) {
    const auto record = static_cast<size_t>(sizes.record);
    for (size_t at = kHeaderBytes; at + record <= file.size(); at += record) {
      if (flags & 4) {
        put_hash(file, at, xxh3_64(ids.data(), static_cast<size_t>(4 * sizes.positions)));
      }
      if (flags & 2) put_hash(file, at + record - 8, xxh3_64(&file[at], record - 8));
    }
  }
  const MemoryFile input(file);
  accepts(file.size(), [&] {
    const TeacherLogitsFile logits{std::filesystem::path(input.path())};
    const int64_t rows = std::min(kReadRows, logits.rows());
    if (rows < 0) found("a negative number of rows");
    const int64_t first = logits.rows() - rows;
    Tensor targets = Tensor::empty({rows * logits.shape().target_length}, DType::i32);
    std::fill_n(targets.data<int32_t>(), targets.elements(), 7);
    const kernels::TeacherLogits said = logits.read(first, targets);
    if (rows == 0) return;
    const MemoryFile copy("");
    const TeacherLogitsFile written(copy.path(), logits.shape());
    written.write(0, targets, said);
    const std::string bytes = read_file(copy.path());
    const size_t records = static_cast<size_t>(rows * sizes.record);
    const size_t from = kHeaderBytes + static_cast<size_t>(first * sizes.record);
    if (bytes.size() != kHeaderBytes + records ||
        bytes.compare(0, kHeaderUsed, file, 0, kHeaderUsed) ||
        bytes.compare(kHeaderBytes, records, file, from, records)) {
      found("what was read is written otherwise");
    }
  });
  return 0;
}
