#include "libswitch/train/teacher_logits.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"

namespace sw {
namespace {

constexpr int64_t kHeaderBytes = 4096;
constexpr char kMagic[8] = {'S', 'W', 'T', 'L', 'O', 'G', '1', '\n'};
constexpr int64_t kMostPositions = int64_t{1} << 20, kMostLogits = int64_t{1} << 16;

struct Header {
  char magic[8];
  int64_t target_length, largest, vocab_size;
  char teacher_digest[32];
  uint64_t checksum;  // XXH3-64 of what comes before
};

Header header_of(const TeacherLogitsShape& shape) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.target_length = shape.target_length;
  header.largest = shape.largest;
  header.vocab_size = shape.vocab_size;
  std::memcpy(header.teacher_digest, shape.teacher_digest.data(),
              std::min<size_t>(shape.teacher_digest.size(), sizeof header.teacher_digest));
  header.checksum = xxh3_64(&header, offsetof(Header, checksum));
  return header;
}

bool is_hexadecimal(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

int64_t file_bytes(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? static_cast<int64_t>(info.st_size) : 0;
}

}  // namespace

TeacherLogitsFile::TeacherLogitsFile(const std::filesystem::path& path)
    : path_(path), fd_(open_for_read(path)) {
  read_header();
}

TeacherLogitsFile::TeacherLogitsFile(const std::filesystem::path& path,
                                     const TeacherLogitsShape& shape)
    : path_(path), shape_(shape) {
  fd_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  SW_CHECK(fd_.get() >= 0, cannot_create, "{}: cannot write: {}", path.string(),
           std::strerror(errno));
  if (file_bytes(fd_.get()) == 0) {
    std::vector<char> block(kHeaderBytes);
    const Header header = header_of(shape);
    std::memcpy(block.data(), &header, sizeof header);
    // Ranks that come together write the same bytes.
    pwrite_all(fd_.get(), block.data(), block.size(), 0, path.string());
    return;
  }
  expect(shape);
}

void TeacherLogitsFile::check_writable(const std::filesystem::path& path,
                                       const TeacherLogitsShape& shape) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    const std::filesystem::path folder = std::filesystem::absolute(path, error).parent_path();
    SW_CHECK(::access(folder.c_str(), W_OK | X_OK) == 0, cannot_create, "{}: cannot write: {}",
             path.string(), std::strerror(errno));
    return;
  }
  TeacherLogitsFile file(path, FileDescriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC)));
  SW_CHECK(file.fd_.get() >= 0, cannot_create, "{}: cannot write: {}", path.string(),
           std::strerror(errno));
  if (file_bytes(file.fd_.get()) > 0) file.expect(shape);
}

void TeacherLogitsFile::expect(const TeacherLogitsShape& shape) {
  read_header();
  SW_CHECK(
      shape_ == shape, usage,
      "{}: is there and of another teacher, vocabulary, length or number of logits; remove it, "
      "or give another file",
      path_.string());
}

int64_t TeacherLogitsFile::rows() const {
  return (file_bytes(fd_.get()) - kHeaderBytes) / record_bytes();
}

void TeacherLogitsFile::read_header() {
  SW_CHECK(file_bytes(fd_.get()) >= kHeaderBytes, corrupt,
           "{}: too short for a file of teacher logits", path_.string());
  Header header{};
  pread_all(fd_.get(), &header, sizeof header, 0, path_.string());
  SW_CHECK(std::memcmp(header.magic, kMagic, sizeof kMagic) == 0, corrupt,
           "{}: no file of teacher logits; sw-distill --write-teacher-logits makes one",
           path_.string());
  SW_CHECK(header.checksum == xxh3_64(&header, offsetof(Header, checksum)) &&
               header.target_length >= 1 && header.target_length <= kMostPositions &&
               header.largest >= 1 && header.largest <= std::min(kMostLogits, header.vocab_size) &&
               std::all_of(header.teacher_digest, std::end(header.teacher_digest), is_hexadecimal),
           corrupt, "{}: damaged header", path_.string());
  shape_ = {header.target_length, header.largest, header.vocab_size,
            std::string(header.teacher_digest, sizeof header.teacher_digest)};
}

kernels::TeacherLogits TeacherLogitsFile::read(int64_t first_row, const Tensor& targets) const {
  const int64_t t = shape_.target_length, k = shape_.largest, bytes = record_bytes();
  const int64_t rows = targets.elements() / t, whole = this->rows();
  SW_CHECK(first_row + rows <= whole, corrupt,
           "{}: ends before row {} of the training data; give at most as many --steps as it was "
           "made with",
           path_.string(), std::max(first_row, whole));
  kernels::TeacherLogits said;
  said.ids = Tensor::empty({rows * t, k}, DType::i32);
  said.logits = Tensor::empty({rows * t, k}, DType::f32);
  // A file without rows may claim any size of one.
  std::vector<char> record(static_cast<size_t>(rows > 0 ? bytes : 0));
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = kHeaderBytes + (first_row + row) * bytes;
    pread_all(fd_.get(), record.data(), record.size(), static_cast<uint64_t>(at), path_.string());
    uint64_t of_targets = 0, checksum = 0;
    std::memcpy(&of_targets, record.data(), 8);
    std::memcpy(&checksum, record.data() + bytes - 8, 8);
    SW_CHECK(checksum == xxh3_64(record.data(), static_cast<size_t>(bytes - 8)), corrupt,
             "{}: row {} was not written or is damaged; make the file again", path_.string(),
             first_row + row);
    SW_CHECK(of_targets == xxh3_64(targets.data<int32_t>() + row * t, static_cast<size_t>(4 * t)),
             corrupt,
             "{}: row {} is of other targets; give the data, --batch, --seed and lengths that it "
             "was made with",
             path_.string(), first_row + row);
    std::memcpy(said.ids.data<int32_t>() + row * t * k, record.data() + 8,
                static_cast<size_t>(4 * t * k));
    std::memcpy(said.logits.data<float>() + row * t * k, record.data() + 8 + 4 * t * k,
                static_cast<size_t>(4 * t * k));
  }
  for (int64_t i = 0; i < rows * t * k; ++i) {
    const int32_t id = said.ids.data<int32_t>()[i];
    SW_CHECK(id >= -1 && id < shape_.vocab_size, corrupt, "{}: id {} outside the vocabulary of {}",
             path_.string(), id, shape_.vocab_size);
    SW_CHECK(
        std::isfinite(said.logits.data<float>()[i]), corrupt,
        "{}: row {} has a logit that is no number; the teacher had diverged, or another program "
        "wrote the file",
        path_.string(), first_row + i / (t * k));
  }
  return said;
}

void TeacherLogitsFile::write(int64_t first_row, const Tensor& targets,
                              const kernels::TeacherLogits& said) const {
  const int64_t t = shape_.target_length, k = shape_.largest, bytes = record_bytes();
  std::vector<char> record(static_cast<size_t>(bytes));
  for (int64_t row = 0; row < targets.elements() / t; ++row) {
    const uint64_t of_targets =
        xxh3_64(targets.data<int32_t>() + row * t, static_cast<size_t>(4 * t));
    std::memcpy(record.data(), &of_targets, 8);
    std::memcpy(record.data() + 8, said.ids.data<int32_t>() + row * t * k,
                static_cast<size_t>(4 * t * k));
    std::memcpy(record.data() + 8 + 4 * t * k, said.logits.data<float>() + row * t * k,
                static_cast<size_t>(4 * t * k));
    const uint64_t checksum = xxh3_64(record.data(), static_cast<size_t>(bytes - 8));
    std::memcpy(record.data() + bytes - 8, &checksum, 8);
    pwrite_all(fd_.get(), record.data(), record.size(),
               static_cast<uint64_t>(kHeaderBytes + (first_row + row) * bytes), path_.string());
  }
}

}  // namespace sw
