#include "libswitch/kernels/norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_accumulates;
using test::expect_close;
using test::expect_same_bits;
using test::expect_thread_invariant;
using test::nan_tensor;
using test::random_tensor;
using test::sum_tolerance;
using test::ulp_tolerance;
using test::uniform_tensor;

const Stream kStream;
constexpr double kEpsilon = 1e-6;

// Every third row is masked.
Tensor mask_of(int64_t rows) {
  Tensor mask = Tensor::empty({rows}, DType::u8);
  for (int64_t n = 0; n < rows; ++n) mask.data<uint8_t>()[n] = n % 3 == 1 ? 0 : 1;
  return mask;
}

struct Case {
  int64_t rows, width;
  DType dtype;
  bool branch, mask;
  std::string str() const {
    return fmt::format("[{}, {}] {}{}{}", rows, width, dtype_name(dtype), branch ? " branch" : "",
                       mask ? " mask" : "");
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  int turn = 0;
  for (const DType dtype : test::kFloatTypes) {
    for (const int64_t rows : {1, 3, 65, 130}) {
      for (const int64_t width : test::kOddSizes) {
        all.push_back({rows, width, dtype, (turn & 1) != 0, (turn & 2) != 0});
        ++turn;
      }
    }
  }
  return all;
}

TEST(ResidualNorm, ForwardEqualsThePlainFormula) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.str());
    const DType master = master_dtype(c.dtype);
    const Tensor x = random_tensor({c.rows, c.width}, c.dtype, 1);
    const Tensor branch = c.branch ? random_tensor({c.rows, c.width}, c.dtype, 2) : Tensor();
    const Tensor scale = uniform_tensor({c.width}, master, 3, 0.5, 2);
    const Tensor mask = c.mask ? mask_of(c.rows) : Tensor();
    Tensor residual = nan_tensor({c.rows, c.width}, c.dtype);
    Tensor normed = nan_tensor({c.rows, c.width}, c.dtype);
    Tensor inv_rms = nan_tensor({c.rows}, master);
    residual_norm_forward(kStream, residual, normed, inv_rms, x, branch, scale, mask, kEpsilon);

    std::vector<double> sum = x.to_vector();
    if (c.branch) {
      const std::vector<double> b = branch.to_vector();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
    }
    expect_close(residual, sum, ulp_tolerance(c.dtype, 1), "residual");
    // The statistics are those of the rounded sum.
    const std::vector<double> r = residual.to_vector(), g = scale.to_vector();
    std::vector<double> want(r.size()), inverse;
    for (int64_t n = 0; n < c.rows; ++n) {
      double squares = 0;
      for (int64_t i = 0; i < c.width; ++i) squares += std::pow(r[n * c.width + i], 2);
      inverse.push_back(1 / std::sqrt(squares / static_cast<double>(c.width) + kEpsilon));
      for (int64_t i = 0; i < c.width; ++i) {
        want[n * c.width + i] =
            c.mask && n % 3 == 1 ? 0 : r[n * c.width + i] * inverse.back() * g[i];
      }
    }
    expect_close(inv_rms, inverse, sum_tolerance(master, c.width, inverse[0]), "inv_rms");
    expect_close(normed, want, sum_tolerance(c.dtype, c.width, 2), "normed");
  }
}

TEST(ResidualNorm, ResidualMayBeLeftOutWithoutBranch) {
  const Tensor x = random_tensor({5, 17}, DType::bf16, 1);
  const Tensor scale = uniform_tensor({17}, DType::f32, 3, 0.5, 2);
  Tensor copy = nan_tensor({5, 17}, DType::bf16), none;
  Tensor a = nan_tensor({5, 17}, DType::bf16), b = nan_tensor({5, 17}, DType::bf16);
  Tensor inv_rms = nan_tensor({5}, DType::f32);
  residual_norm_forward(kStream, copy, a, inv_rms, x, Tensor(), scale, Tensor(), kEpsilon);
  residual_norm_forward(kStream, none, b, inv_rms, x, Tensor(), scale, Tensor(), kEpsilon);
  expect_same_bits(a, b, "normed");
  expect_same_bits(copy, x, "residual");
}

struct Backward {
  Tensor residual, inv_rms, scale, mask, d_normed, d_through;
  explicit Backward(const Case& c) {
    const DType master = master_dtype(c.dtype);
    residual = random_tensor({c.rows, c.width}, c.dtype, 1);
    scale = uniform_tensor({c.width}, master, 3, 0.5, 2);
    mask = c.mask ? mask_of(c.rows) : Tensor();
    d_normed = random_tensor({c.rows, c.width}, c.dtype, 4);
    d_through = c.branch ? random_tensor({c.rows, c.width}, c.dtype, 5) : Tensor();
    inv_rms = nan_tensor({c.rows}, master);
    Tensor none, normed = nan_tensor({c.rows, c.width}, c.dtype);
    residual_norm_forward(kStream, none, normed, inv_rms, residual, Tensor(), scale, mask,
                          kEpsilon);
  }
  void run(Tensor& d_x, Accum accum_x, Tensor& d_branch, Accum accum_branch, Tensor& d_scale,
           Accum accum_scale) const {
    residual_norm_backward(kStream, d_x, accum_x, d_branch, accum_branch, d_scale, accum_scale,
                           residual, inv_rms, scale, mask, d_normed, d_through);
  }
};

TEST(ResidualNorm, BackwardEqualsThePlainFormula) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.str());
    const DType master = master_dtype(c.dtype);
    const Backward b(c);
    Tensor d_x, d_branch, d_scale = nan_tensor({c.width}, master);
    d_x = expect_accumulates(
        {c.rows, c.width}, c.dtype,
        [&](Tensor& out, Accum accum) {
          d_branch = nan_tensor({c.rows, c.width}, c.dtype);
          b.run(out, accum, d_branch, Accum::write, d_scale, Accum::write);
        },
        "d_residual");
    expect_same_bits(d_branch, d_x, "d_branch");
    expect_accumulates(
        {c.rows, c.width}, c.dtype,
        [&](Tensor& out, Accum accum) {
          b.run(d_x, Accum::write, out, accum, d_scale, Accum::write);
        },
        "d_branch");
    expect_accumulates(
        {c.width}, master,
        [&](Tensor& out, Accum accum) {
          b.run(d_x, Accum::write, d_branch, Accum::write, out, accum);
        },
        "d_scale", c.rows);

    const std::vector<double> x = b.residual.to_vector(), g = b.scale.to_vector(),
                              dy = b.d_normed.to_vector(), inverse = b.inv_rms.to_vector();
    std::vector<double> want(x.size(), 0.0), want_scale(static_cast<size_t>(c.width), 0.0);
    if (c.branch) want = b.d_through.to_vector();
    for (int64_t n = 0; n < c.rows; ++n) {
      if (c.mask && n % 3 == 1) continue;
      double dot = 0;
      for (int64_t i = 0; i < c.width; ++i) {
        const size_t k = n * c.width + i;
        dot += dy[k] * g[i] * x[k];
        want_scale[i] += dy[k] * x[k] * inverse[n];
      }
      for (int64_t i = 0; i < c.width; ++i) {
        const size_t k = n * c.width + i;
        want[k] += inverse[n] * g[i] * dy[k] -
                   std::pow(inverse[n], 3) * x[k] * dot / static_cast<double>(c.width);
      }
    }
    // A row of few elements may have a tiny rms: errors grow with its inverse.
    const double steep = *std::max_element(inverse.begin(), inverse.end());
    expect_close(d_x, want, sum_tolerance(c.dtype, c.width, 8 * steep), "d_residual");
    expect_close(d_scale, want_scale, sum_tolerance(master, c.rows, 8 * steep), "d_scale");
  }
}

TEST(ResidualNorm, SharedOutputAndAbsentGradientsAreAllowed) {
  const Case c{65, 17, DType::f32, true, true};
  const Backward b(c);
  Tensor d_x = nan_tensor({65, 17}, DType::f32), none, d_scale = nan_tensor({17}, DType::f32);
  b.run(d_x, Accum::write, none, Accum::write, d_scale, Accum::write);
  Tensor shared = nan_tensor({65, 17}, DType::f32), alias = shared;
  b.run(shared, Accum::write, alias, Accum::write, d_scale, Accum::write);
  expect_same_bits(shared, d_x, "shared");
}

TEST(ResidualNorm, GradientsAgreeWithFiniteDifferences) {
  Tensor x = random_tensor({4, 19}, DType::f64, 1);
  Tensor branch = random_tensor({4, 19}, DType::f64, 2);
  Tensor scale = uniform_tensor({19}, DType::f64, 3, 0.5, 2);
  const Tensor mask = mask_of(4);
  const std::vector<double> a = random_tensor({4, 19}, DType::f64, 4).to_vector();
  const std::vector<double> b = random_tensor({4, 19}, DType::f64, 5).to_vector();
  Tensor residual = nan_tensor({4, 19}, DType::f64), normed = nan_tensor({4, 19}, DType::f64);
  Tensor inv_rms = nan_tensor({4}, DType::f64);
  const auto loss = [&] {
    residual_norm_forward(kStream, residual, normed, inv_rms, x, branch, scale, mask, kEpsilon);
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      sum += a[i] * normed.data<double>()[i] + b[i] * residual.data<double>()[i];
    }
    return sum;
  };
  loss();
  Tensor d_x = nan_tensor({4, 19}, DType::f64), d_branch = nan_tensor({4, 19}, DType::f64);
  Tensor d_scale = nan_tensor({19}, DType::f64);
  residual_norm_backward(kStream, d_x, Accum::write, d_branch, Accum::write, d_scale, Accum::write,
                         residual, inv_rms, scale, mask, Tensor::from({4, 19}, a),
                         Tensor::from({4, 19}, b));
  test::expect_gradient(d_x, x, loss, "d_residual");
  test::expect_gradient(d_branch, branch, loss, "d_branch");
  test::expect_gradient(d_scale, scale, loss, "d_scale");
}

TEST(ResidualNorm, BitsDoNotDependOnThreads) {
  for (const DType dtype : test::kFloatTypes) {
    const Case c{517, 129, dtype, true, true};
    expect_thread_invariant(
        [&] {
          const Backward b(c);
          Tensor d_x = nan_tensor({c.rows, c.width}, dtype), d_branch;
          Tensor d_scale = nan_tensor({c.width}, master_dtype(dtype));
          b.run(d_x, Accum::write, d_branch, Accum::write, d_scale, Accum::write);
          return std::vector<Tensor>{b.inv_rms, d_x, d_scale};
        },
        "residual_norm");
  }
}

TEST(ResidualNorm, WrongShapesAreErrors) {
  Tensor none, normed = nan_tensor({5, 16}, DType::f32), inv_rms = nan_tensor({5}, DType::f32);
  const Tensor x = random_tensor({5, 17}, DType::f32, 1);
  const Tensor scale = random_tensor({17}, DType::f32, 1);
  EXPECT_THROW(
      residual_norm_forward(kStream, none, normed, inv_rms, x, Tensor(), scale, Tensor(), kEpsilon),
      Error);
}

}  // namespace
}  // namespace sw::kernels
