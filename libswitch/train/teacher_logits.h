// A teacher's largest logits for every target of the training rows, made once and read by any
// number of students.
//
// The file, which switch-teacher-logits(5) describes: a header of 4096 bytes, then one record for
// every row of the stream of training rows, in its order, all of one size: XXH3-64 of the row's
// target ids, T x K ids (i32, -1: none), T x K logits (f32), XXH3-64 of all that. Rows that were
// not written are holes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "libswitch/base/file.h"
#include "libswitch/kernels/distillation.h"

namespace sw {

struct TeacherLogitsShape {
  int64_t target_length = 0;  // T
  int64_t largest = 0;        // K
  int64_t vocab_size = 0;
  std::string teacher_digest;  // 32 hexadecimal digits
  bool operator==(const TeacherLogitsShape&) const = default;
};

class TeacherLogitsFile {
 public:
  /// Opens a file to read. Throws missing, io, corrupt.
  explicit TeacherLogitsFile(const std::filesystem::path& path);
  /// Opens one to write, or goes on with it; every rank its rows. Throws cannot_create, and usage
  /// when the file is there and of another shape.
  TeacherLogitsFile(const std::filesystem::path& path, const TeacherLogitsShape& shape);

  /// Throws what opening a file to write would, without making or changing it.
  static void check_writable(const std::filesystem::path& path, const TeacherLogitsShape& shape);

  const TeacherLogitsShape& shape() const { return shape_; }
  /// Rows from the first to the last that was written, whole ones.
  int64_t rows() const;
  /// Rows from `first_row` on: targets [R·T] i32, as many as there are -> ids and logits [R·T, K].
  /// Throws corrupt for rows that are damaged, were not written or are of other targets.
  kernels::TeacherLogits read(int64_t first_row, const Tensor& targets) const;
  /// The opposite.
  void write(int64_t first_row, const Tensor& targets, const kernels::TeacherLogits& said) const;

 private:
  explicit TeacherLogitsFile(std::filesystem::path path, FileDescriptor fd)
      : path_(std::move(path)), fd_(std::move(fd)) {}
  int64_t record_bytes() const { return 16 + 8 * shape_.target_length * shape_.largest; }
  void read_header();
  void expect(const TeacherLogitsShape& shape);

  std::filesystem::path path_;
  FileDescriptor fd_;
  TeacherLogitsShape shape_;
};

/// The `k` largest logits of each row with a target, largest first, of equal ones the lower id
/// first. `said` is what the logits are made of, its table whole.
kernels::TeacherLogits largest_logits(const Stream& stream, const kernels::TeacherLogits& said,
                                      const Tensor& targets, int64_t k);

}  // namespace sw
