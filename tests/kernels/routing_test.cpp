#include "libswitch/kernels/routing.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_accumulates;
using test::expect_close;
using test::expect_same_bits;
using test::expect_thread_invariant;
using test::int_tensor;
using test::nan_tensor;
using test::random_tensor;
using test::sum_tolerance;
using test::ulp_tolerance;

const Stream kStream;

TEST(JitterCast, MultipliesByTheStreamOfDraws) {
  const RngKey key = rng_key(3, RngPurpose::jitter, 1, 2);
  for (const DType from : test::kFloatTypes) {
    for (const DType to : {master_dtype(from), from}) {
      const Tensor x = random_tensor({37, 65}, from, 1);
      const Tensor y = expect_accumulates(
          {37, 65}, to,
          [&](Tensor& out, Accum accum) { jitter_cast(kStream, out, accum, x, 0.01, key, 1001); },
          "jitter_cast");
      std::vector<double> want = x.to_vector();
      for (size_t i = 0; i < want.size(); ++i) {
        const double u = static_cast<double>(random_uniform(key, 1001 * 65 + i));
        EXPECT_GE(u, 0);
        want[i] *= 0.99 + 0.02 * u;
      }
      expect_close(y, want, ulp_tolerance(to), "jitter_cast");
    }
  }
}

TEST(JitterCast, IsThePlainCastWithoutJitter) {
  const Tensor x = random_tensor({3, 7}, DType::bf16, 1);
  Tensor y = nan_tensor({3, 7}, DType::f32);
  jitter_cast(kStream, y, Accum::write, x, 0, RngKey{}, 5);
  expect_same_bits(y, x.to(DType::f32), "cast");
  EXPECT_THROW(jitter_cast(kStream, y, Accum::write, x, -0.1, RngKey{}, 0), Error);
  EXPECT_THROW(jitter_cast(kStream, y, Accum::write, x, std::nan(""), RngKey{}, 0), Error);
}

TEST(JitterCast, RowsDoNotDependOnTheirNeighbours) {
  const RngKey key = rng_key(3, RngPurpose::jitter);
  const Tensor x = random_tensor({700, 65}, DType::f32, 1);
  Tensor whole = nan_tensor({700, 65}, DType::f32), part = nan_tensor({111, 65}, DType::f32);
  jitter_cast(kStream, whole, Accum::write, x, 0.1, key, 0);
  jitter_cast(kStream, part, Accum::write, x.slice(589, 700), 0.1, key, 589);
  expect_same_bits(part, whole.slice(589, 700), "rows from 589 on");
}

TEST(RouterSoftmax, EqualsThePlainFormula) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const int64_t experts : {1, 2, 8, 17, 127}) {
      for (const double spread : {1.0, 30.0}) {
        const Tensor logits = random_tensor({33, experts}, dtype, 1, spread);
        const std::vector<double> x = logits.to_vector();
        Tensor p = nan_tensor({33, experts}, dtype), log_z = nan_tensor({33}, dtype);
        router_softmax(kStream, p, log_z, logits);
        std::vector<double> want(x.size()), want_z(33);
        for (int64_t n = 0; n < 33; ++n) {
          const auto row = x.begin() + n * experts;
          const double top = *std::max_element(row, row + experts);
          double sum = 0;
          for (int64_t e = 0; e < experts; ++e) sum += std::exp(row[e] - top);
          want_z[n] = top + std::log(sum);
          for (int64_t e = 0; e < experts; ++e)
            want[n * experts + e] = std::exp(row[e] - want_z[n]);
        }
        // The subtraction of the largest logit rounds: relative error of some units of the spread.
        expect_close(p, want, {8 * test::epsilon(dtype) * (4 + 8 * spread), 1e-37}, "p");
        expect_close(log_z, want_z, ulp_tolerance(dtype, 8, 1 + spread), "log_z");
      }
    }
  }
}

TEST(RouterSoftmax, IsStableForHugeLogits) {
  const Tensor logits = Tensor::from({1, 3}, std::vector<float>{3e38f, -3e38f, 3e38f});
  Tensor p = nan_tensor({1, 3}, DType::f32), log_z = nan_tensor({1}, DType::f32);
  router_softmax(kStream, p, log_z, logits);
  EXPECT_EQ(p.to_vector(), (std::vector<double>{0.5, 0, 0.5}));
}

TEST(RouterSoftmax, GradientsAgreeWithFiniteDifferences) {
  Tensor logits = random_tensor({5, 7}, DType::f64, 1);
  const Tensor d_p = random_tensor({5, 7}, DType::f64, 2), d_z = random_tensor({5}, DType::f64, 3);
  Tensor p = nan_tensor({5, 7}, DType::f64), log_z = nan_tensor({5}, DType::f64);
  bool with_z = true;
  const auto loss = [&] {
    router_softmax(kStream, p, log_z, logits);
    double sum = 0;
    for (int i = 0; i < 35; ++i) sum += p.data<double>()[i] * d_p.data<double>()[i];
    for (int n = 0; n < 5; ++n) {
      sum += with_z ? log_z.data<double>()[n] * d_z.data<double>()[n] : 0;
    }
    return sum;
  };
  loss();
  Tensor d_logits = nan_tensor({5, 7}, DType::f64);
  router_softmax_backward(kStream, d_logits, p, d_p, d_z);
  test::expect_gradient(d_logits, logits, loss, "d_logits");
  with_z = false;
  loss();
  router_softmax_backward(kStream, d_logits, p, d_p, Tensor());
  test::expect_gradient(d_logits, logits, loss, "d_logits without d_log_z");
}

// A plan over 6 tokens, 2 choices, 8 rows: token 1 has one row, token 4 none; rows 3 and 7 empty.
struct Plan {
  Tensor row_of =
      Tensor::from({6, 2}, std::vector<int32_t>{0, 4, -1, 1, 2, 5, 6, -1, -1, -1, -1, -1});
  Tensor row_token = int_tensor({0, 1, 2, -1, 0, 2, 3, -1});
};

TEST(Dispatch, CopiesTokensToRowsAndSumsBack) {
  const Plan plan;
  for (const DType dtype : test::kFloatTypes) {
    for (const int64_t width : test::kOddSizes) {
      const Tensor x = random_tensor({6, width}, dtype, 1);
      Tensor rows = nan_tensor({8, width}, dtype);
      dispatch_forward(kStream, rows, x, plan.row_token);
      const Tensor d_rows = random_tensor({8, width}, dtype, 2);
      const Tensor d_x = expect_accumulates(
          {6, width}, dtype,
          [&](Tensor& out, Accum accum) {
            dispatch_backward(kStream, out, accum, d_rows, plan.row_of);
          },
          "d_x", 2);
      const std::vector<double> xv = x.to_vector(), dv = d_rows.to_vector();
      std::vector<double> want(static_cast<size_t>(8 * width), 0.0),
          want_x(static_cast<size_t>(6 * width), 0.0);
      for (int64_t r = 0; r < 8; ++r) {
        const int64_t n = plan.row_token.data<int32_t>()[r];
        for (int64_t i = 0; n >= 0 && i < width; ++i) {
          want[r * width + i] = xv[n * width + i];
          want_x[n * width + i] += dv[r * width + i];
        }
      }
      EXPECT_EQ(rows.to_vector(), want);
      expect_close(d_x, want_x, sum_tolerance(dtype, 2), "d_x");
    }
  }
}

TEST(Combine, WeighsTheRowsOfEveryToken) {
  const Plan plan;
  for (const DType dtype : test::kFloatTypes) {
    for (const bool keep_dropped : {false, true}) {
      for (const int64_t width : test::kOddSizes) {
        const DType master = master_dtype(dtype);
        const Tensor rows = random_tensor({8, width}, dtype, 1);
        const Tensor gate = random_tensor({6, 2}, master, 2);
        const Tensor dropped = keep_dropped ? random_tensor({6, width}, dtype, 3) : Tensor();
        const Tensor d_y = random_tensor({6, width}, dtype, 4);
        Tensor y = nan_tensor({6, width}, dtype);
        combine_forward(kStream, y, rows, gate, plan.row_of, dropped);

        Tensor d_rows = nan_tensor({8, width}, dtype), d_gate = nan_tensor({6, 2}, master);
        Tensor d_dropped;
        if (keep_dropped) {
          d_dropped = expect_accumulates(
              {6, width}, dtype,
              [&](Tensor& out, Accum accum) {
                combine_backward(kStream, d_rows, d_gate, out, accum, rows, gate, plan.row_of,
                                 plan.row_token, dropped, d_y);
              },
              "d_dropped");
        } else {
          combine_backward(kStream, d_rows, d_gate, d_dropped, Accum::write, rows, gate,
                           plan.row_of, plan.row_token, dropped, d_y);
        }

        const std::vector<double> rv = rows.to_vector(), gv = gate.to_vector(),
                                  dy = d_y.to_vector();
        const std::vector<double> kept = keep_dropped ? dropped.to_vector() : rv;
        std::vector<double> want(static_cast<size_t>(6 * width), 0.0), want_rows(rv.size(), 0.0),
            want_gate(12, 0.0), want_dropped(want.size(), 0.0);
        for (int64_t n = 0; n < 6; ++n) {
          bool any = false;
          for (int64_t c = 0; c < 2; ++c) {
            const int64_t r = plan.row_of.data<int32_t>()[n * 2 + c];
            if (r < 0) continue;
            any = true;
            for (int64_t i = 0; i < width; ++i) {
              want[n * width + i] += gv[n * 2 + c] * rv[r * width + i];
              want_rows[r * width + i] = gv[n * 2 + c] * dy[n * width + i];
              want_gate[n * 2 + c] += dy[n * width + i] * rv[r * width + i];
            }
          }
          for (int64_t i = 0; !any && keep_dropped && i < width; ++i) {
            want[n * width + i] = gv[n * 2] * kept[n * width + i];
            want_dropped[n * width + i] = gv[n * 2] * dy[n * width + i];
            want_gate[n * 2] += dy[n * width + i] * kept[n * width + i];
          }
        }
        expect_close(y, want, sum_tolerance(dtype, 2, 3), "y");
        expect_close(d_rows, want_rows, ulp_tolerance(dtype), "d_rows");
        expect_close(d_gate, want_gate, sum_tolerance(master, width, 3), "d_gate");
        if (keep_dropped) expect_close(d_dropped, want_dropped, ulp_tolerance(dtype), "d_dropped");
      }
    }
  }
}

TEST(Combine, GradientsAgreeWithFiniteDifferences) {
  const Plan plan;
  Tensor rows = random_tensor({8, 5}, DType::f64, 1), gate = random_tensor({6, 2}, DType::f64, 2);
  Tensor dropped = random_tensor({6, 5}, DType::f64, 3);
  const Tensor d_y = random_tensor({6, 5}, DType::f64, 4);
  Tensor y = nan_tensor({6, 5}, DType::f64);
  const auto loss = [&] {
    combine_forward(kStream, y, rows, gate, plan.row_of, dropped);
    double sum = 0;
    for (int i = 0; i < 30; ++i) sum += y.data<double>()[i] * d_y.data<double>()[i];
    return sum;
  };
  Tensor d_rows = nan_tensor({8, 5}, DType::f64), d_gate = nan_tensor({6, 2}, DType::f64);
  Tensor d_dropped = nan_tensor({6, 5}, DType::f64);
  combine_backward(kStream, d_rows, d_gate, d_dropped, Accum::write, rows, gate, plan.row_of,
                   plan.row_token, dropped, d_y);
  test::expect_gradient(d_rows, rows, loss, "d_rows");
  test::expect_gradient(d_gate, gate, loss, "d_gate");
  test::expect_gradient(d_dropped, dropped, loss, "d_dropped");
}

TEST(Routing, PlansThatPointOutsideAreErrors) {
  Tensor x = random_tensor({6, 4}, DType::f32, 1), rows = nan_tensor({8, 4}, DType::f32);
  EXPECT_THROW(dispatch_forward(kStream, rows, x, int_tensor({0, 1, 2, 3, 4, 5, 6, 0})), Error);
  EXPECT_THROW(dispatch_backward(kStream, x, Accum::write, rows,
                                 Tensor::from({6, 1}, std::vector<int32_t>{0, 1, 2, 3, 8, -1})),
               Error);
}

TEST(Routing, BitsDoNotDependOnThreads) {
  const int64_t tokens = 900, experts = 17, width = 257;
  std::vector<int32_t> forward, back;
  for (int32_t n = 0; n < tokens; ++n) {
    back.push_back(n % 7 == 0 ? -1 : static_cast<int32_t>(forward.size()));
    if (n % 7 != 0) forward.push_back(n);
  }
  const Tensor row_token = int_tensor(forward), row_of = int_tensor(back).view({tokens, 1});
  for (const DType dtype : test::kFloatTypes) {
    const DType master = master_dtype(dtype);
    const Tensor x = random_tensor({tokens, width}, dtype, 1);
    const Tensor logits = random_tensor({tokens, experts}, master, 2);
    const Tensor gate = random_tensor({tokens, 1}, master, 3);
    expect_thread_invariant(
        [&] {
          Tensor jittered = nan_tensor({tokens, width}, master);
          jitter_cast(kStream, jittered, Accum::write, x, 0.01, rng_key(1, RngPurpose::jitter), 3);
          Tensor p = nan_tensor({tokens, experts}, master), log_z = nan_tensor({tokens}, master);
          router_softmax(kStream, p, log_z, logits);
          Tensor rows = nan_tensor({row_token.size(0), width}, dtype), none;
          dispatch_forward(kStream, rows, x, row_token);
          Tensor y = nan_tensor({tokens, width}, dtype);
          combine_forward(kStream, y, rows, gate, row_of, x);
          Tensor d_rows = nan_tensor(rows.shape(), dtype), d_gate = nan_tensor({tokens, 1}, master);
          combine_backward(kStream, d_rows, d_gate, none, Accum::write, rows, gate, row_of,
                           row_token, x, y);
          return std::vector<Tensor>{jittered, p, log_z, rows, y, d_rows, d_gate};
        },
        "routing");
  }
}

}  // namespace
}  // namespace sw::kernels
