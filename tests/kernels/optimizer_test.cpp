#include "libswitch/kernels/optimizer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_close;
using test::expect_thread_invariant;
using test::nan_tensor;
using test::random_tensor;
using test::uniform_tensor;

const Stream kStream;

struct Case {
  int64_t batch, rows, columns;
  DType dtype;
  bool factored, one_rms;
  AdafactorParams params;
  Shape shape() const { return {batch, rows, columns}; }
  int64_t elements() const { return batch * rows * columns; }
  std::string str() const {
    return fmt::format("[{}, {}, {}] {}{}{}", batch, rows, columns, dtype_name(dtype),
                       factored ? " factored" : "", one_rms ? " one_rms" : "");
  }
};

struct State {
  Tensor weight, value, row, column, moment, gradient;
  Tensor squares;  // Σw² of every matrix, once a step has been taken with it
  bool squares_known = false;
  double update_rms = -1;
  explicit State(const Case& c, DType value_dtype = DType::bf16) {
    weight = random_tensor(c.shape(), c.dtype, 1, 0.05);
    value = nan_tensor(c.shape(), value_dtype);
    gradient = random_tensor(c.shape(), c.dtype, 2, 1e-3);
    if (c.factored) {
      row = uniform_tensor({c.batch, c.rows}, c.dtype, 3, 1e-7, 1e-5);
      column = uniform_tensor({c.batch, c.columns}, c.dtype, 4, 1e-7, 1e-5);
    } else {
      moment = uniform_tensor(c.shape(), c.dtype, 5, 1e-7, 1e-5);
    }
  }
  void step(const Case& c) {
    adafactor_step(kStream, weight, value, row, column, moment, squares, squares_known, gradient,
                   c.batch, c.rows, c.columns, c.one_rms, c.params, &update_rms);
  }
};

// Shazeer & Stern 2018, algorithm 4 and section 6, in double, one line of it after the other.
struct Reference {
  std::vector<double> weight, row, column, moment;
  double update_rms = 0;
  Reference(const Case& c, const State& s) {
    const AdafactorParams& p = c.params;
    const int64_t count = c.rows * c.columns;
    weight = s.weight.to_vector();
    std::vector<double> g = s.gradient.to_vector(), u(g.size());
    for (double& value : g) value *= p.gradient_scale;
    if (c.factored) {
      row = s.row.to_vector();
      column = s.column.to_vector();
      for (int64_t b = 0; b < c.batch; ++b) {
        double* r = row.data() + b * c.rows;
        double* k = column.data() + b * c.columns;
        const double* gb = g.data() + b * count;
        double mean_r = 0;
        for (int64_t i = 0; i < c.rows; ++i) {
          double mean = 0;
          for (int64_t j = 0; j < c.columns; ++j) {
            mean += (gb[i * c.columns + j] * gb[i * c.columns + j] + p.epsilon1) /
                    static_cast<double>(c.columns);
          }
          r[i] = p.beta2 * r[i] + (1 - p.beta2) * mean;
          mean_r += r[i] / static_cast<double>(c.rows);
        }
        for (int64_t j = 0; j < c.columns; ++j) {
          double mean = 0;
          for (int64_t i = 0; i < c.rows; ++i) {
            mean += (gb[i * c.columns + j] * gb[i * c.columns + j] + p.epsilon1) /
                    static_cast<double>(c.rows);
          }
          k[j] = p.beta2 * k[j] + (1 - p.beta2) * mean;
        }
        for (int64_t i = 0; i < c.rows; ++i) {
          for (int64_t j = 0; j < c.columns; ++j) {
            const int64_t at = b * count + i * c.columns + j;
            u[at] = g[at] / std::sqrt(r[i] / mean_r * k[j]);
          }
        }
      }
    } else {
      moment = s.moment.to_vector();
      for (size_t i = 0; i < g.size(); ++i) {
        moment[i] = p.beta2 * moment[i] + (1 - p.beta2) * (g[i] * g[i] + p.epsilon1);
        u[i] = g[i] / std::sqrt(moment[i]);
      }
    }
    const auto rms = [](const double* x, int64_t n) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
      return std::sqrt(sum / static_cast<double>(n));
    };
    update_rms = rms(u.data(), c.elements());
    const std::vector<double> old = weight;
    const int64_t span = c.one_rms ? c.elements() : count;
    for (int64_t first = 0; first < c.elements(); first += span) {
      const double clip = std::max(1.0, rms(u.data() + first, span) / p.clip_threshold);
      const double size =
          p.multiply_by_rms ? std::max(rms(old.data() + first, span), p.epsilon2) : 1;
      for (int64_t i = first; i < first + span; ++i) {
        weight[i] -= p.learning_rate * size * u[i] / clip;
      }
    }
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const AdafactorParams first;  // beta2 0, all else the paper's
  AdafactorParams later;
  later.beta2 = 0.99;
  later.gradient_scale = 0.3;
  later.clip_threshold = 0.05;
  AdafactorParams plain = later;
  plain.multiply_by_rms = false;
  plain.clip_threshold = 1e9;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const bool factored : {false, true}) {
      all.push_back({1, 1, 17, dtype, factored, true, first});
      all.push_back({1, 65, 127, dtype, factored, true, later});
      all.push_back({1, 130, 33, dtype, factored, true, plain});
      all.push_back({3, 17, 65, dtype, factored, true, later});
      all.push_back({3, 70, 9, dtype, factored, false, first});
      all.push_back({5, 3, 40, dtype, factored, false, plain});
    }
  }
  return all;
}

TEST(Adafactor, OneStepEqualsThePublishedAlgorithm) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.str());
    State s(c);
    const Reference want(c, s);
    s.step(c);
    const double relative = 16 * test::epsilon(c.dtype);
    // An update is at most a few times learning_rate in size.
    expect_close(s.weight, want.weight, {relative, relative * 0.1}, "weight");
    expect_close(s.value, s.weight.to(DType::bf16), {0, 0}, "value");
    if (c.factored) {
      expect_close(s.row, want.row, {relative, 0}, "row_moment");
      expect_close(s.column, want.column, {relative, 0}, "column_moment");
    } else {
      expect_close(s.moment, want.moment, {relative, 0}, "moment");
    }
    EXPECT_NEAR(s.update_rms, want.update_rms, relative * want.update_rms);
  }
}

TEST(Adafactor, BatchedEqualsEntryByEntry) {
  // Enough entries for several groups; per-entry rms makes each a matrix of its own.
  AdafactorParams params;
  params.beta2 = 0.9;
  const Case c{21, 256, 300, DType::f32, true, false, params};
  State all(c);
  const State before(c);
  all.step(c);
  for (const int64_t b : {0, 12, 13, 20}) {
    Case one = c;
    one.batch = 1;
    State s(one);
    s.weight = before.weight[b].clone();
    s.gradient = before.gradient[b];
    s.row = before.row[b].clone();
    s.column = before.column[b].clone();
    s.step(one);
    test::expect_same_bits(s.weight, all.weight[b], "weight");
    test::expect_same_bits(s.row, all.row[b], "row_moment");
    test::expect_same_bits(s.column, all.column[b], "column_moment");
  }
}

TEST(Adafactor, SumsKeptFromTheLastStepChangeNoBits) {
  AdafactorParams params;
  params.beta2 = 0.9;
  for (const DType dtype : {DType::f32, DType::f64}) {
    // By all threads and one to a thread; columns with and without a tail of 32, and past caches.
    for (const auto& [batch, rows, columns] :
         std::vector<std::array<int64_t, 3>>{{1, 130, 61}, {16, 70, 96}, {2, 64, 2048}}) {
      for (const bool one_rms : {false, true}) {
        const Case c{batch, rows, columns, dtype, true, one_rms, params};
        SCOPED_TRACE(c.str());
        State summed(c), kept(c);
        kept.squares = nan_tensor({batch}, DType::f64);
        for (int step = 0; step < 3; ++step) {
          summed.step(c);
          kept.step(c);
          kept.squares_known = true;
          test::expect_same_bits(kept.weight, summed.weight, "weight");
          test::expect_same_bits(kept.value, summed.value, "value");
        }
        // It was looked at.
        for (int64_t i = 0; i < batch; ++i) kept.squares.data<double>()[i] *= 4;
        const Tensor before = kept.weight.clone();
        kept.step(c);
        summed.step(c);
        const double twice = kept.weight.to_vector()[5] - before.to_vector()[5];
        const double once = summed.weight.to_vector()[5] - before.to_vector()[5];
        EXPECT_NEAR(twice / once, 2, 0.02);
      }
    }
  }
}

TEST(Adafactor, ZeroGradientLeavesTheWeights) {
  for (const bool factored : {false, true}) {
    const Case c{1, 5, 9, DType::f32, factored, true, {}};
    State s(c);
    const Tensor before = s.weight.clone();
    s.gradient = Tensor::zeros(c.shape(), DType::f32);
    s.step(c);
    test::expect_same_bits(s.weight, before, "weight");
    EXPECT_EQ(s.update_rms, 0);
  }
}

TEST(Adafactor, TinyGradientsStillMakeFullSteps) {
  // The rule is invariant to the gradient's scale as long as g² is above epsilon1.
  for (const bool factored : {false, true}) {
    const Case c{1, 33, 65, DType::f64, factored, true, {}};
    State a(c), b(c);
    b.gradient = a.gradient.clone();
    for (int64_t i = 0; i < c.elements(); ++i) b.gradient.data<double>()[i] *= 1e-3;
    a.step(c);
    b.step(c);
    expect_close(b.weight, a.weight, {1e-10, 1e-10}, "weight");
  }
}

TEST(Adafactor, ANanGradientShowsInTheWeights) {
  for (const bool factored : {false, true}) {
    const Case c{1, 5, 9, DType::f32, factored, true, {}};
    State s(c);
    s.gradient.data<float>()[7] = std::nanf("");
    s.step(c);
    EXPECT_TRUE(std::isnan(s.weight.data<float>()[7]));
    EXPECT_TRUE(std::isnan(s.update_rms));
  }
}

TEST(Adafactor, BitsDoNotDependOnThreads) {
  for (const bool factored : {false, true}) {
    for (const bool one_rms : {false, true}) {
      AdafactorParams params;
      params.beta2 = 0.8;
      const Case c{7, 300, 517, DType::f32, factored, one_rms, params};
      expect_thread_invariant(
          [&] {
            State s(c);
            s.step(c);
            std::vector<Tensor> all{s.weight, s.value,
                                    Tensor::from({1}, std::vector<double>{s.update_rms})};
            for (const Tensor& t : {s.row, s.column, s.moment}) {
              if (t) all.push_back(t);
            }
            return all;
          },
          c.str());
    }
  }
}

TEST(Adafactor, MomentsOfAnotherSizeAreErrors) {
  const Case c{1, 5, 9, DType::f32, true, true, {}};
  State s(c);
  s.row = Tensor::zeros({4}, DType::f32);
  EXPECT_THROW(s.step(c), Error);
}

TEST(AdamW, OneStepEqualsThePublishedAlgorithm) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const int64_t n : {1, 127, 40000}) {
      AdamWParams p;
      p.weight_decay = 0.1;
      p.step = 3;
      p.gradient_scale = 0.5;
      Tensor weight = random_tensor({n}, dtype, 1), value = nan_tensor({n}, DType::bf16);
      Tensor m = random_tensor({n}, dtype, 2, 1e-3), v = uniform_tensor({n}, dtype, 3, 1e-8, 1e-6);
      const Tensor g = random_tensor({n}, dtype, 4, 1e-3);
      std::vector<double> w = weight.to_vector(), m1 = m.to_vector(), v1 = v.to_vector();
      const std::vector<double> gv = g.to_vector();
      for (size_t i = 0; i < w.size(); ++i) {
        const double scaled = 0.5 * gv[i];
        m1[i] = 0.9 * m1[i] + 0.1 * scaled;
        v1[i] = 0.999 * v1[i] + 0.001 * scaled * scaled;
        const double mean = m1[i] / (1 - std::pow(0.9, 3)),
                     square = v1[i] / (1 - std::pow(0.999, 3));
        w[i] -= 1e-3 * (mean / (std::sqrt(square) + 1e-8) + 0.1 * w[i]);
      }
      adamw_step(kStream, weight, value, m, v, g, p);
      const double relative = 16 * test::epsilon(dtype);
      expect_close(m, m1, {relative, relative * 1e-3}, "first_moment");
      expect_close(v, v1, {relative, relative * 1e-6}, "second_moment");
      // The size of an update: learning rate times mean / sqrt(square), up to 1e-3 · 100.
      expect_close(weight, w, {relative, relative * 0.1}, "weight");
      expect_close(value, weight.to(DType::bf16), {0, 0}, "value");
    }
  }
}

TEST(AdamW, BitsDoNotDependOnThreads) {
  expect_thread_invariant(
      [] {
        Tensor weight = random_tensor({70001}, DType::f32, 1), none;
        Tensor m = Tensor::zeros({70001}, DType::f32), v = Tensor::zeros({70001}, DType::f32);
        adamw_step(kStream, weight, none, m, v, random_tensor({70001}, DType::f32, 2),
                   AdamWParams{});
        return std::vector<Tensor>{weight, m, v};
      },
      "adamw_step");
}

}  // namespace
}  // namespace sw::kernels
