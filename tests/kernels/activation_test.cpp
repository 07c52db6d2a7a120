#include "libswitch/kernels/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_accumulates;
using test::expect_close;
using test::nan_tensor;
using test::random_tensor;
using test::ulp_tolerance;

const Stream kStream;
constexpr Curve kCurves[] = {Curve::relu, Curve::gelu, Curve::gelu_tanh, Curve::silu};

// In long double: 1 - tanh² cancels.
double value_of(Curve curve, long double x) {
  switch (curve) {
    case Curve::relu: return static_cast<double>(x > 0 ? x : 0);
    case Curve::gelu:
      return static_cast<double>(x / 2 * (1 + std::erf(x / std::numbers::sqrt2_v<long double>)));
    case Curve::gelu_tanh: {
      const long double u =
          std::sqrt(2 / std::numbers::pi_v<long double>) * (x + 0.044715L * x * x * x);
      return static_cast<double>(0.5L * x * (1 + std::tanh(u)));
    }
    case Curve::silu: return static_cast<double>(x / (1 + std::exp(-x)));
  }
  return 0;
}

double slope_of(Curve curve, long double x) {
  constexpr long double kPi = std::numbers::pi_v<long double>;
  switch (curve) {
    case Curve::relu: return x > 0 ? 1 : 0;
    case Curve::gelu:
      return static_cast<double>(0.5L * (1 + std::erf(x / std::numbers::sqrt2_v<long double>)) +
                                 x * std::exp(-x * x / 2) / std::sqrt(2 * kPi));
    case Curve::gelu_tanh: {
      const long double t = std::tanh(std::sqrt(2 / kPi) * (x + 0.044715L * x * x * x));
      return static_cast<double>(0.5L * (1 + t) + 0.5L * x * (1 - t * t) * std::sqrt(2 / kPi) *
                                                      (1 + 3 * 0.044715L * x * x));
    }
    case Curve::silu: {
      const long double s = 1 / (1 + std::exp(-x));
      return static_cast<double>(s * (1 + x * (1 - s)));
    }
  }
  return 0;
}

TEST(Curve, EqualsThePlainFormulaAloneAndAsAGate) {
  for (const Curve curve : kCurves) {
    for (const DType dtype : test::kFloatTypes) {
      SCOPED_TRACE(fmt::format("curve {}, {}", static_cast<int>(curve), dtype_name(dtype)));
      const Shape shape{3, 333};
      const Tensor a = random_tensor(shape, dtype, 1, 3), b = random_tensor(shape, dtype, 2);
      const Tensor d_y = random_tensor(shape, dtype, 3);
      const std::vector<double> av = a.to_vector(), bv = b.to_vector(), dv = d_y.to_vector();
      std::vector<double> alone(av.size()), d_alone(av.size());
      std::vector<double> gated(av.size()), want_a(av.size()), want_b(av.size());
      for (size_t i = 0; i < av.size(); ++i) {
        alone[i] = value_of(curve, av[i]);
        d_alone[i] = dv[i] * slope_of(curve, av[i]);
        gated[i] = alone[i] * bv[i];
        want_a[i] = d_alone[i] * bv[i];
        want_b[i] = dv[i] * alone[i];
      }
      // Factors of a few units each, of products up to 10 (|a|) times 4 times 4.
      const test::Tolerance tolerance = ulp_tolerance(dtype, 4, 40);
      Tensor y = nan_tensor(shape, dtype);
      curve_forward(kStream, y, a, curve);
      expect_close(y, alone, tolerance, "curve");
      Tensor in_place = a.clone();
      curve_forward(kStream, in_place, in_place, curve);
      test::expect_same_bits(in_place, y, "in place");
      gated_forward(kStream, y, a, b, curve);
      expect_close(y, gated, tolerance, "gated");
      in_place = a.clone();
      gated_forward(kStream, in_place, in_place, b, curve);
      test::expect_same_bits(in_place, y, "gated in place");

      const Tensor d_x = expect_accumulates(
          shape, dtype,
          [&](Tensor& out, Accum accum) { curve_backward(kStream, out, accum, a, d_y, curve); },
          "d_x");
      expect_close(d_x, d_alone, tolerance, "d_x");
      Tensor d_a = nan_tensor(shape, dtype), d_b = nan_tensor(shape, dtype);
      d_a = expect_accumulates(
          shape, dtype,
          [&](Tensor& out, Accum accum) {
            gated_backward(kStream, out, accum, d_b, Accum::write, a, b, d_y, curve);
          },
          "d_a");
      d_b = expect_accumulates(
          shape, dtype,
          [&](Tensor& out, Accum accum) {
            gated_backward(kStream, d_a, Accum::write, out, accum, a, b, d_y, curve);
          },
          "d_b");
      expect_close(d_a, want_a, tolerance, "d_a");
      expect_close(d_b, want_b, tolerance, "d_b");
    }
  }
}

TEST(Curve, GradientsAgreeWithFiniteDifferences) {
  for (const Curve curve : kCurves) {
    SCOPED_TRACE(static_cast<int>(curve));
    Tensor a = random_tensor({37}, DType::f64, 1), b = random_tensor({37}, DType::f64, 2);
    const Tensor d_y = random_tensor({37}, DType::f64, 3);
    Tensor y = nan_tensor({37}, DType::f64);
    const auto loss = [&] {
      gated_forward(kStream, y, a, b, curve);
      double sum = 0;
      for (int i = 0; i < 37; ++i) sum += y.data<double>()[i] * d_y.data<double>()[i];
      return sum;
    };
    Tensor d_a = nan_tensor({37}, DType::f64), d_b = nan_tensor({37}, DType::f64);
    gated_backward(kStream, d_a, Accum::write, d_b, Accum::write, a, b, d_y, curve);
    test::expect_gradient(d_a, a, loss, "d_a");
    test::expect_gradient(d_b, b, loss, "d_b");
  }
}

TEST(Curve, StaysFiniteFarOut) {
  for (const Curve curve : kCurves) {
    for (const DType dtype : test::kFloatTypes) {
      SCOPED_TRACE(fmt::format("curve {}, {}", static_cast<int>(curve), dtype_name(dtype)));
      const Tensor x = Tensor::from({4}, std::vector<float>{-1e4F, -90, 90, 1e4F}).to(dtype);
      const Tensor ones = Tensor::from({4}, std::vector<float>{1, 1, 1, 1}).to(dtype);
      Tensor y = nan_tensor({4}, dtype), d_x = nan_tensor({4}, dtype);
      curve_forward(kStream, y, x, curve);
      curve_backward(kStream, d_x, Accum::write, x, ones, curve);
      const std::vector<double> in = x.to_vector();
      expect_close(y, {0, 0, in[2], in[3]}, ulp_tolerance(dtype, 4, 1), "y");
      expect_close(d_x, {0, 0, 1, 1}, ulp_tolerance(dtype, 4, 1), "d_x");
    }
  }
}

TEST(Curve, BitsDoNotDependOnThreads) {
  for (const Curve curve : kCurves) {
    for (const DType dtype : test::kFloatTypes) {
      const Tensor a = random_tensor({211, 513}, dtype, 1), b = random_tensor({211, 513}, dtype, 2);
      test::expect_thread_invariant(
          [&] {
            Tensor alone = nan_tensor({211, 513}, dtype), gated = nan_tensor({211, 513}, dtype);
            curve_forward(kStream, alone, a, curve);
            gated_forward(kStream, gated, a, b, curve);
            return std::vector<Tensor>{alone, gated};
          },
          "curve");
    }
  }
}

}  // namespace
}  // namespace sw::kernels
