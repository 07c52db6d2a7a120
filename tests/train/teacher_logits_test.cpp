#include "libswitch/train/teacher_logits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "libswitch/base/error.h"
#include "tests/fuzz/fuzz_target.h"

namespace sw {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDigest = "00112233445566778899aabbccddeeff";

// Two rows of three targets, two logits each.
struct Rows {
  Tensor targets = Tensor::empty({6}, DType::i32);
  kernels::TeacherLogits said;
  Rows() {
    said.ids = Tensor::empty({6, 2}, DType::i32);
    said.logits = Tensor::empty({6, 2}, DType::f32);
    for (int32_t i = 0; i < 6; ++i) targets.data<int32_t>()[i] = i;
    for (int32_t i = 0; i < 12; ++i) said.ids.data<int32_t>()[i] = i - 1;
    for (int32_t i = 0; i < 12; ++i) said.logits.data<float>()[i] = 0.5F * static_cast<float>(-i);
  }
};

std::string refusal(const TeacherLogitsFile& file, const Tensor& targets) {
  try {
    file.read(0, targets);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::corrupt);
    return error.what();
  }
  return "taken";
}

TEST(TeacherLogits, ReadWhatWasWrittenAndNothingElse) {
  const fuzz::MemoryFile memory("");
  const TeacherLogitsFile file(memory.path(), {3, 2, 12, kDigest});
  Rows rows;
  file.write(0, rows.targets, rows.said);
  EXPECT_EQ(file.rows(), 2);
  const kernels::TeacherLogits back = TeacherLogitsFile(memory.path()).read(0, rows.targets);
  EXPECT_TRUE(std::equal(back.ids.data<int32_t>(), back.ids.data<int32_t>() + 12,
                         rows.said.ids.data<int32_t>()));
  EXPECT_TRUE(std::equal(back.logits.data<float>(), back.logits.data<float>() + 12,
                         rows.said.logits.data<float>()));

  Rows others;
  others.targets.data<int32_t>()[3] = 7;
  EXPECT_THAT(refusal(file, others.targets),
              HasSubstr(": row 1 is of other targets; give the data"));
  rows.said.ids.data<int32_t>()[7] = 12;
  file.write(0, rows.targets, rows.said);
  EXPECT_THAT(refusal(file, rows.targets), HasSubstr(": id 12 outside the vocabulary of 12"));
  rows.said.ids.data<int32_t>()[7] = 11;
  rows.said.logits.data<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  file.write(0, rows.targets, rows.said);
  EXPECT_THAT(refusal(file, rows.targets), HasSubstr(": row 1 has a logit that is no number"));
}

}  // namespace
}  // namespace sw
