#include "tests/support/kernel_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "libswitch/base/parallel.h"
#include "libswitch/base/rng.h"

namespace sw::test {
namespace {

Tensor rounded(const Shape& shape, const std::vector<double>& values, DType dtype) {
  return Tensor::from(shape, values).to(dtype);
}

}  // namespace

Tensor random_tensor(const Shape& shape, DType dtype, uint64_t seed, double scale) {
  const RngKey key = rng_key(seed, RngPurpose::test, 1);
  std::vector<double> values(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * random_normal(key, i);
  return rounded(shape, values, dtype);
}

Tensor uniform_tensor(const Shape& shape, DType dtype, uint64_t seed, double low, double high) {
  const RngKey key = rng_key(seed, RngPurpose::test, 2);
  std::vector<double> values(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = low + (high - low) * static_cast<double>(random_uniform(key, i));
  }
  return rounded(shape, values, dtype);
}

Tensor random_ints(const Shape& shape, uint64_t seed, int32_t low, int32_t high) {
  RngStream stream(rng_key(seed, RngPurpose::test, 3));
  std::vector<int32_t> values(static_cast<size_t>(shape.elements()));
  for (auto& value : values) {
    value = low + static_cast<int32_t>(stream.below(static_cast<uint64_t>(high - low)));
  }
  return Tensor::from(shape, values);
}

Tensor nan_tensor(const Shape& shape, DType dtype) {
  const std::vector<double> values(static_cast<size_t>(shape.elements()),
                                   std::numeric_limits<double>::quiet_NaN());
  return rounded(shape, values, dtype);
}

Tensor int_tensor(const std::vector<int32_t>& values) {
  return Tensor::from(Shape{static_cast<int64_t>(values.size())}, values);
}

double epsilon(DType dtype) {
  switch (dtype) {
    case DType::bf16: return 0x1.0p-7;
    case DType::f64: return 0x1.0p-52;
    default: return 0x1.0p-23;
  }
}

Tolerance sum_tolerance(DType dtype, int64_t terms, double scale) {
  const double n = static_cast<double>(std::max<int64_t>(terms, 1));
  return {epsilon(dtype), 4 * epsilon(master_dtype(dtype)) * n * scale};
}

Tolerance ulp_tolerance(DType dtype, double ulps, double scale) {
  return {ulps * epsilon(dtype), ulps * epsilon(dtype) * scale * 0.25};
}

void expect_close(const Tensor& got, const std::vector<double>& want, Tolerance tolerance,
                  const std::string& what) {
  ASSERT_TRUE(got.defined()) << what;
  const std::vector<double> values = got.to_vector();
  ASSERT_EQ(values.size(), want.size()) << what;
  size_t bad = 0, first = 0, worst = 0;
  double worst_excess = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    const double bound = tolerance.absolute + tolerance.relative * std::abs(want[i]);
    const double error = std::abs(values[i] - want[i]);
    if (error <= bound || (std::isinf(want[i]) && values[i] == want[i])) continue;
    if (bad++ == 0) first = i;
    const double excess = std::isnan(error) ? std::numeric_limits<double>::infinity()
                                            : error / std::max(bound, 1e-300);
    if (excess > worst_excess) worst_excess = excess, worst = i;
  }
  EXPECT_EQ(bad, 0u) << what << " " << got.shape().str() << " " << dtype_name(got.dtype()) << ": "
                     << bad << " of " << values.size() << " elements differ; first [" << first
                     << "] is " << values[first] << ", expected " << want[first] << "; worst ["
                     << worst << "] is " << values[worst] << ", expected " << want[worst] << ", "
                     << worst_excess << " times the tolerance";
}

void expect_close(const Tensor& got, const Tensor& want, Tolerance tolerance,
                  const std::string& what) {
  expect_close(got, want.to_vector(), tolerance, what);
}

void expect_same_bits(const Tensor& got, const Tensor& want, const std::string& what) {
  ASSERT_EQ(got.defined(), want.defined()) << what;
  if (!got.defined()) return;
  ASSERT_EQ(got.shape(), want.shape()) << what;
  ASSERT_EQ(got.dtype(), want.dtype()) << what;
  if (got.bytes() == 0) return;
  EXPECT_EQ(std::memcmp(got.raw(), want.raw(), static_cast<size_t>(got.bytes())), 0)
      << what << " " << got.shape().str() << " " << dtype_name(got.dtype()) << ": bits differ";
}

void expect_thread_invariant(const std::function<std::vector<Tensor>()>& kernel,
                             const std::string& what) {
  std::vector<Tensor> first;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    std::vector<Tensor> results = kernel();
    if (threads == 1) {
      first = std::move(results);
      continue;
    }
    ASSERT_EQ(results.size(), first.size()) << what;
    for (size_t i = 0; i < first.size(); ++i) {
      expect_same_bits(results[i], first[i],
                       what + ", result " + std::to_string(i) + ", 1 and " +
                           std::to_string(threads) + " threads");
    }
  }
}

Tensor expect_accumulates(const Shape& shape, DType dtype,
                          const std::function<void(Tensor&, Accum)>& kernel,
                          const std::string& what, int64_t terms) {
  Tensor written = nan_tensor(shape, dtype);
  kernel(written, Accum::write);
  const std::vector<double> values = written.to_vector();
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  EXPECT_TRUE(std::isfinite(largest) &&
              std::none_of(values.begin(), values.end(), [](double x) { return std::isnan(x); }))
      << what << ": write left old contents behind";

  const Tensor old = random_tensor(shape, dtype, 99, std::max(largest, 1e-3));
  Tensor added = old.clone();
  kernel(added, Accum::add);
  std::vector<double> want = old.to_vector();
  double magnitude = largest;
  for (size_t i = 0; i < want.size(); ++i) {
    magnitude = std::max(magnitude, std::abs(want[i]));
    want[i] += values[i];
  }
  // The summands may be rounded to dtype before they are added, or only their sum.
  const double roundings = 2 * std::sqrt(static_cast<double>(std::max<int64_t>(terms, 1)));
  expect_close(added, want, {epsilon(dtype), roundings * epsilon(dtype) * magnitude},
               what + ", added");
  return written;
}

void expect_gradient(const Tensor& gradient, Tensor& x, const std::function<double()>& loss,
                     const std::string& what, int64_t samples) {
  ASSERT_EQ(gradient.shape(), x.shape()) << what;
  const std::vector<double> analytic = gradient.to_vector();
  double scale = 0;
  for (const double g : analytic) scale = std::max(scale, std::abs(g));
  double* values = x.data<double>();
  // A stride that shares no factor with common sizes visits all rows and columns.
  const int64_t n = x.elements();
  const int64_t step = std::max<int64_t>(1, n / samples) | 1;
  for (int64_t i = 0; i < n; i += step) {
    const double old = values[i];
    // Five points: error of order h^4 beside eps/h of rounding.
    const double h = 1e-3 * std::max(1.0, std::abs(old));
    const auto at = [&](double value) {
      values[i] = value;
      return loss();
    };
    const double difference =
        (8 * (at(old + h) - at(old - h)) - (at(old + 2 * h) - at(old - 2 * h))) / (12 * h);
    values[i] = old;
    EXPECT_NEAR(analytic[static_cast<size_t>(i)], difference, 1e-7 * std::max(scale, 1e-2))
        << what << ": d/dx[" << i << "] of " << x.shape().str();
  }
}

ThreadsScope::ThreadsScope(int threads) : before_(num_threads()) { set_threads(threads); }
ThreadsScope::~ThreadsScope() { set_threads(before_); }

}  // namespace sw::test
