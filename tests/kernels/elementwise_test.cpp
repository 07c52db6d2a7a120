#include "libswitch/kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_accumulates;
using test::expect_close;
using test::expect_same_bits;
using test::expect_thread_invariant;
using test::nan_tensor;
using test::random_tensor;
using test::ulp_tolerance;

const Stream kStream;

std::vector<double> map(const Tensor& x, const std::function<double(double)>& fn) {
  std::vector<double> y = x.to_vector();
  for (double& value : y) value = fn(value);
  return y;
}

TEST(Fill, SetsEveryElementOfAnyType) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u8}) {
    Tensor x = Tensor::zeros({3, 65}, dtype);
    fill(kStream, x, 7);
    EXPECT_EQ(x.to_vector(), std::vector<double>(195, 7.0)) << dtype_name(dtype);
  }
}

TEST(Cast, EqualsConversionOfEachElement) {
  for (const DType from : test::kFloatTypes) {
    for (const DType to : test::kFloatTypes) {
      for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{17}, int64_t{100003}}) {
        const Tensor x = random_tensor({n}, from, 1);
        Tensor y = nan_tensor({n}, to);
        cast(kStream, y, x);
        expect_same_bits(y, x.to(to), fmt::format("{} to {}", dtype_name(from), dtype_name(to)));
      }
    }
  }
}

TEST(Cast, KeepsInfinityAndNan) {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::from({4}, std::vector<float>{inf, -inf, std::nanf(""), 3.4e38f});
  Tensor y = Tensor::zeros({4}, DType::bf16);
  cast(kStream, y, x);
  const std::vector<double> got = y.to_vector();
  EXPECT_EQ(got[0], inf);
  EXPECT_EQ(got[1], -inf);
  EXPECT_TRUE(std::isnan(got[2]));
  EXPECT_EQ(got[3], inf);  // rounds up beyond the largest bf16
}

TEST(Scale, MultipliesAcrossTypes) {
  for (const DType from : test::kFloatTypes) {
    for (const DType to : test::kFloatTypes) {
      const Tensor x = random_tensor({7, 33}, from, 1);
      const Tensor y = expect_accumulates(
          {7, 33}, to, [&](Tensor& out, Accum accum) { scale(kStream, out, x, -0.3, accum); },
          "scale");
      const DType coarse = from == DType::f64 && to == DType::f64 ? DType::f64
                           : to == DType::bf16                    ? DType::bf16
                                                                  : DType::f32;
      expect_close(y, map(x, [](double v) { return -0.3 * v; }), ulp_tolerance(coarse), "scale");
    }
  }
}

TEST(Relu, ForwardAndBackwardFollowTheSign) {
  for (const DType dtype : test::kFloatTypes) {
    const Tensor x = random_tensor({5, 127}, dtype, 1);
    const Tensor d_y = random_tensor({5, 127}, dtype, 2);
    Tensor y = nan_tensor({5, 127}, dtype);
    relu_forward(kStream, y, x);
    EXPECT_EQ(y.to_vector(), map(x, [](double v) { return std::max(v, 0.0); }));
    const Tensor d_x = expect_accumulates(
        {5, 127}, dtype,
        [&](Tensor& out, Accum accum) { relu_backward(kStream, out, accum, y, d_y); }, "d_x");
    std::vector<double> want = d_y.to_vector();
    for (size_t i = 0; i < want.size(); ++i) want[i] = x.to_vector()[i] > 0 ? want[i] : 0;
    EXPECT_EQ(d_x.to_vector(), want);
    Tensor in_place = x.clone();
    relu_forward(kStream, in_place, in_place);
    expect_same_bits(in_place, y, "in place");
    Tensor d_in_place = d_y.clone();
    relu_backward(kStream, d_in_place, Accum::write, y, d_in_place);
    expect_same_bits(d_in_place, d_x, "in place");
  }
}

TEST(Relu, KeepsNanVisible) {
  const Tensor x = nan_tensor({3}, DType::f32);
  Tensor y = Tensor::zeros({3}, DType::f32);
  relu_forward(kStream, y, x);
  for (const double value : y.to_vector()) EXPECT_TRUE(std::isnan(value));
}

TEST(Dropout, FollowsTheStreamOfDraws) {
  for (const DType dtype : test::kFloatTypes) {
    for (const int64_t rows_per_mask : {1, 4}) {
      const DropoutParams params{0.3, rng_key(5, RngPurpose::dropout, 1, 2, 3), 1001,
                                 rows_per_mask};
      const Tensor x = random_tensor({13, 65}, dtype, 1);
      const Tensor y = expect_accumulates(
          {13, 65}, dtype,
          [&](Tensor& out, Accum accum) { dropout(kStream, out, accum, x, params); }, "dropout");
      std::vector<double> want = x.to_vector();
      for (int64_t n = 0; n < 13; ++n) {
        for (int64_t d = 0; d < 65; ++d) {
          const auto index = static_cast<uint64_t>((1001 + n) / rows_per_mask * 65 + d);
          const bool kept = static_cast<double>(random_uniform(params.key, index)) >= 0.3;
          want[n * 65 + d] *= kept ? 1 / 0.7 : 0;
        }
      }
      expect_close(y, want, ulp_tolerance(dtype), "dropout");
    }
  }
}

TEST(Dropout, KeepsTheShareAndTheRowsOfAnySplit) {
  const DropoutParams whole{0.1, rng_key(5, RngPurpose::dropout), 0, 1};
  Tensor x = Tensor::empty({300, 100}, DType::f32), y = nan_tensor({300, 100}, DType::f32);
  fill(kStream, x, 1);
  dropout(kStream, y, Accum::write, x, whole);
  int64_t zeros = 0;
  for (const double value : y.to_vector()) zeros += value == 0;
  EXPECT_NEAR(static_cast<double>(zeros), 3000, 5 * std::sqrt(30000 * 0.1 * 0.9));
  DropoutParams part = whole;
  part.first_row = 100;
  Tensor tail = nan_tensor({200, 100}, DType::f32);
  dropout(kStream, tail, Accum::write, x.slice(100, 300), part);
  expect_same_bits(tail, y.slice(100, 300), "rows from 100 on");
}

TEST(Dropout, RateZeroCopiesAndBadRatesAreErrors) {
  const Tensor x = random_tensor({3, 5}, DType::bf16, 1);
  Tensor y = nan_tensor({3, 5}, DType::bf16);
  dropout(kStream, y, Accum::write, x, DropoutParams{});
  expect_same_bits(y, x, "rate 0");
  DropoutParams params;
  for (const double rate : {-0.1, 1.0, std::nan("")}) {
    params.rate = rate;
    EXPECT_THROW(dropout(kStream, y, Accum::write, x, params), Error) << rate;
  }
}

TEST(MaskRows, ZerosTheMaskedRows) {
  const Tensor mask = Tensor::from({4}, std::vector<uint8_t>{1, 0, 3, 0});
  for (const DType dtype : test::kFloatTypes) {
    const Tensor x = random_tensor({4, 33}, dtype, 1);
    const Tensor y = expect_accumulates(
        {4, 33}, dtype, [&](Tensor& out, Accum accum) { mask_rows(kStream, out, accum, x, mask); },
        "mask_rows");
    std::vector<double> want = x.to_vector();
    for (size_t i = 0; i < want.size(); ++i) want[i] = i / 33 % 2 == 1 ? 0 : want[i];
    EXPECT_EQ(y.to_vector(), want);
    Tensor in_place = x.clone();
    mask_rows(kStream, in_place, Accum::write, in_place, mask);
    expect_same_bits(in_place, y, "in place");
  }
}

TEST(SumOfSquares, IsExactToDouble) {
  for (const DType dtype : test::kFloatTypes) {
    for (const int64_t n : {0, 1, 31, 16384, 100001}) {
      const Tensor x = random_tensor({n}, dtype, 1);
      long double want = 0;
      for (const double value : x.to_vector()) want += static_cast<long double>(value) * value;
      double sum = -1;
      sum_of_squares(kStream, &sum, x);
      EXPECT_NEAR(sum, static_cast<double>(want), 1e-13 * static_cast<double>(want)) << n;
    }
  }
}

TEST(CountNonfinite, FindsEveryOne) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const DType dtype : test::kFloatTypes) {
    Tensor x = random_tensor({70001}, DType::f32, 1);
    for (const int i : {0, 31, 16383, 16384, 40000, 70000}) {
      x.data<float>()[i] = i % 2 == 0 ? inf : i == 31 ? -inf : std::nanf("");
    }
    int64_t count = -1;
    count_nonfinite(kStream, &count, x.to(dtype));
    EXPECT_EQ(count, 6) << dtype_name(dtype);
    count_nonfinite(kStream, &count, random_tensor({12345}, dtype, 2));
    EXPECT_EQ(count, 0) << dtype_name(dtype);
  }
}

TEST(Elementwise, BitsDoNotDependOnThreads) {
  for (const DType dtype : test::kFloatTypes) {
    const Tensor a = random_tensor({211, 513}, dtype, 1);
    expect_thread_invariant(
        [&] {
          Tensor dropped = nan_tensor({211, 513}, dtype);
          dropout(kStream, dropped, Accum::write, a,
                  DropoutParams{0.2, rng_key(1, RngPurpose::dropout), 7, 3});
          Tensor sum = Tensor::zeros({1}, DType::f64);
          sum_of_squares(kStream, sum.data<double>(), a);
          return std::vector<Tensor>{dropped, sum};
        },
        "elementwise");
  }
}

TEST(Elementwise, DifferentSizesAreErrors) {
  Tensor y = nan_tensor({4}, DType::f32);
  const Tensor x = random_tensor({5}, DType::f32, 1);
  EXPECT_THROW(relu_forward(kStream, y, x), Error);
  EXPECT_THROW(cast(kStream, y, x), Error);
  EXPECT_THROW(dropout(kStream, y, Accum::write, x, DropoutParams{}), Error);
}

}  // namespace
}  // namespace sw::kernels
