// Blocks of columns, and masks of a part of the columns: what a rank that holds a part must draw.
#include "libswitch/kernels/columns.h"

#include <gtest/gtest.h>

#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/row_dropout.h"
#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_same_bits;
using test::int_tensor;
using test::nan_tensor;
using test::random_ints;
using test::random_tensor;

const Stream kStream;

TEST(CopyColumns, MovesABlockAndNothingElse) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32}) {
    const Tensor x =
        dtype == DType::i32 ? random_ints({9, 7}, 1, -5, 5) : random_tensor({9, 7}, dtype, 1);
    Tensor y = Tensor::zeros({9, 5}, dtype);
    copy_columns(kStream, y, 1, x, 4, 3);
    const std::vector<double> from = x.to_vector(), to = y.to_vector();
    for (size_t n = 0; n < 9; ++n) {
      EXPECT_EQ(to[n * 5], 0);
      for (size_t c = 0; c < 3; ++c) EXPECT_EQ(to[n * 5 + 1 + c], from[n * 7 + 4 + c]);
      EXPECT_EQ(to[n * 5 + 4], 0);
    }
    EXPECT_THROW(copy_columns(kStream, y, 3, x, 4, 3), Error);
    EXPECT_THROW(copy_columns(kStream, y, 1, x, 5, 3), Error);
  }
}

TEST(Dropout, APartOfTheColumnsGetsItsPartOfTheMask) {
  for (const DType dtype : test::kFloatTypes) {
    const Tensor x = random_tensor({7, 66}, dtype, 1);
    DropoutParams params{0.3, rng_key(5, RngPurpose::dropout), 9, 2};
    Tensor whole = nan_tensor({7, 66}, dtype);
    dropout(kStream, whole, Accum::write, x, params);
    params.total_columns = 66;
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 33}, {33, 33}, {13, 1}}) {
      params.first_column = first;
      Tensor part = Tensor::empty({7, count}, dtype), want = nan_tensor({7, count}, dtype);
      copy_columns(kStream, part, 0, x, first, count);
      copy_columns(kStream, want, 0, whole, first, count);
      dropout(kStream, part, Accum::write, part, params);
      expect_same_bits(part, want, "columns from " + std::to_string(first));
    }
    params.first_column = 1;
    Tensor y = nan_tensor({7, 66}, dtype);
    EXPECT_THROW(dropout(kStream, y, Accum::write, x, params), Error);
  }
}

TEST(RowDropout, APartOfTheColumnsGetsItsPartOfTheMask) {
  const Tensor x = random_tensor({5, 34}, DType::f32, 1), rows = int_tensor({4, 0, 9, 2, 3});
  RowDropoutParams params{0.3, rng_key(5, RngPurpose::dropout), 7};
  Tensor whole = nan_tensor({5, 34}, DType::f32);
  row_dropout(kStream, whole, Accum::write, x, rows, params);
  params.total_columns = 34;
  for (const int64_t first : {0, 17}) {
    params.first_column = first;
    Tensor part = Tensor::empty({5, 17}, DType::f32), want = nan_tensor({5, 17}, DType::f32);
    copy_columns(kStream, part, 0, x, first, 17);
    copy_columns(kStream, want, 0, whole, first, 17);
    row_dropout(kStream, part, Accum::write, part, rows, params);
    expect_same_bits(part, want, "columns from " + std::to_string(first));
  }
  params.first_column = 1;
  EXPECT_THROW(row_dropout(kStream, whole, Accum::write, x, rows, params), Error);
}

}  // namespace
}  // namespace sw::kernels
