#include "libswitch/kernels/distillation.h"

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
using test::random_ints;
using test::random_tensor;

const Stream kStream;

struct Case {
  int64_t rows, width, teacher_width, vocabulary;
  DType dtype;
  DistillationParams params;
  std::string str() const {
    return fmt::format("N {} D {} {} V {} ({}) {} soft {} temperature {}", rows, width,
                       teacher_width, vocabulary, params.hard.vocab_size, dtype_name(dtype),
                       params.soft_weight, params.temperature);
  }
  int64_t classes() const {
    return params.hard.vocab_size == 0 ? vocabulary : params.hard.vocab_size;
  }
};

struct Inputs {
  Tensor hidden, table, targets;
  TeacherLogits teacher;
  explicit Inputs(const Case& c) {
    hidden = random_tensor({c.rows, c.width}, c.dtype, 1);
    table = random_tensor({c.vocabulary, c.width}, c.dtype, 2);
    teacher.hidden = random_tensor({c.rows, c.teacher_width}, c.dtype, 4);
    teacher.table = random_tensor({c.vocabulary, c.teacher_width}, c.dtype, 5);
    teacher.logit_scale = 0.7;
    targets = random_ints({c.rows}, 3, 0, static_cast<int32_t>(c.classes()));
    for (int64_t n = 2; n < c.rows; n += 3) targets.data<int32_t>()[n] = -1;
  }
};

struct Outputs {
  DistillationSums sums;
  Tensor d_hidden, d_table;
};

Outputs run(const Case& c, const Inputs& in) {
  Outputs out;
  out.d_hidden = nan_tensor({c.rows, c.width}, c.dtype);
  out.d_table = nan_tensor({c.vocabulary, c.width}, master_dtype(c.dtype));
  distillation(kStream, &out.sums, out.d_hidden, out.d_table, Accum::write, in.hidden, in.table,
               in.teacher, in.targets, c.params);
  return out;
}

std::vector<double> logits_of(const Tensor& hidden, const Tensor& table, double scale) {
  const int64_t rows = hidden.size(0), width = hidden.size(1), classes = table.size(0);
  const std::vector<double> h = hidden.to_vector(), w = table.to_vector();
  std::vector<double> x(static_cast<size_t>(rows * classes));
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t v = 0; v < classes; ++v) {
      double sum = 0;
      for (int64_t d = 0; d < width; ++d) sum += h[n * width + d] * w[v * width + d];
      x[n * classes + v] = scale * sum;
    }
  }
  return x;
}

double log_sum_exp(const double* x, int64_t n, double temperature) {
  double top = x[0], sum = 0;
  for (int64_t v = 0; v < n; ++v) top = std::max(top, x[v]);
  for (int64_t v = 0; v < n; ++v) sum += std::exp((x[v] - top) / temperature);
  return top / temperature + std::log(sum);
}

// Everything in double from the definition.
struct Reference {
  DistillationSums sums;
  std::vector<double> d_hidden, d_table;
};

Reference reference(const Case& c, const Inputs& in) {
  const CrossEntropyParams& p = c.params.hard;
  const double t = c.params.temperature, soft_weight = c.params.soft_weight;
  const int64_t classes = c.classes();
  const std::vector<double> h = in.hidden.to_vector(), w = in.table.to_vector();
  const std::vector<double> x = logits_of(in.hidden, in.table, p.logit_scale);
  const std::vector<double> y =
      logits_of(in.teacher.hidden, in.teacher.table, in.teacher.logit_scale);
  Reference r;
  r.d_hidden.resize(h.size());
  r.d_table.resize(w.size());
  for (int64_t n = 0; n < c.rows; ++n) {
    const int64_t target = in.targets.data<int32_t>()[n];
    if (target < 0) continue;
    const double* student = x.data() + n * c.vocabulary;
    const double* teacher = y.data() + n * c.vocabulary;
    const double log_z = log_sum_exp(student, classes, 1);
    const double soft_log_z = log_sum_exp(student, classes, t);
    const double teacher_log_z = log_sum_exp(teacher, classes, t);
    double hard = p.z_loss * log_z * log_z, soft = 0;
    for (int64_t v = 0; v < classes; ++v) {
      const double label = (1 - p.label_smoothing) * (v == target) +
                           p.label_smoothing / static_cast<double>(classes);
      const double q = std::exp(teacher[v] / t - teacher_log_z);
      hard -= label * (student[v] - log_z);
      soft -= q * (student[v] / t - soft_log_z);
      const double d_hard = std::exp(student[v] - log_z) * (1 + 2 * p.z_loss * log_z) - label;
      const double d_soft =
          std::exp(student[v] / t - soft_log_z) * (1 + 2 * p.z_loss * soft_log_z) - q;
      const double d =
          p.weight * p.logit_scale * ((1 - soft_weight) * d_hard + soft_weight * t * d_soft);
      for (int64_t i = 0; i < c.width; ++i) {
        r.d_hidden[n * c.width + i] += d * w[v * c.width + i];
        r.d_table[v * c.width + i] += d * h[n * c.width + i];
      }
    }
    r.sums.student.targets += 1;
    r.sums.student.log_likelihood += student[target] - log_z;
    r.sums.soft_cross_entropy += soft;
    r.sums.teacher_log_likelihood += teacher[target] / t - teacher_log_z;
    r.sums.student.loss +=
        p.weight * ((1 - soft_weight) * hard +
                    soft_weight * t * t * (soft + p.z_loss * soft_log_z * soft_log_z));
  }
  return r;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : test::kFloatTypes) {
    all.push_back({1, 3, 3, 1, dtype, {}});
    all.push_back({65, 17, 9, 127, dtype, {{0.25, 1.0 / 44, 0, 0, 0}, 0.25, 1}});
    all.push_back({33, 65, 70, 130, dtype, {{0.125, 0.1, 1e-2, 0, 127}, 0.4, 2}});
    all.push_back({17, 33, 33, 70, dtype, {{0.2, 1, 1e-3, 0.1, 65}, 1, 3}});
  }
  return all;
}

TEST(Distillation, EqualsThePlainFormula) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.str());
    const Inputs in(c);
    const Outputs got = run(c, in);
    const Reference want = reference(c, in);
    const DType master = master_dtype(c.dtype);
    const double relative =
        16 * test::epsilon(master) * static_cast<double>(std::max(c.width, c.teacher_width));
    const auto near = [&](double a, double b) { EXPECT_NEAR(a, b, relative * (1 + std::abs(b))); };
    EXPECT_EQ(got.sums.student.targets, want.sums.student.targets);
    near(got.sums.student.loss, want.sums.student.loss);
    near(got.sums.student.log_likelihood, want.sums.student.log_likelihood);
    near(got.sums.soft_cross_entropy, want.sums.soft_cross_entropy);
    near(got.sums.teacher_log_likelihood, want.sums.teacher_log_likelihood);
    // As for the cross-entropy: terms have about the size of weight · logit_scale, here times the
    // temperature.
    const double size = c.params.hard.weight * c.params.hard.logit_scale * c.params.temperature;
    const double absolute = size * (16 * test::epsilon(c.dtype) +
                                    16 * static_cast<double>(std::max(c.width, c.teacher_width)) *
                                        test::epsilon(master));
    expect_close(got.d_hidden, want.d_hidden, {2 * test::epsilon(c.dtype), absolute}, "d_hidden");
    expect_close(got.d_table, want.d_table, {2 * test::epsilon(c.dtype), absolute}, "d_table");
  }
}

TEST(Distillation, GradientsAgreeWithFiniteDifferences) {
  const Case c{9, 7, 5, 21, DType::f64, {{0.4, 0.3, 0.05, 0.1, 19}, 0.3, 1.7}};
  Inputs in(c);
  const Outputs got = run(c, in);
  Tensor none, no_table;
  const auto loss = [&] {
    DistillationSums sums;
    distillation(kStream, &sums, none, no_table, Accum::write, in.hidden, in.table, in.teacher,
                 in.targets, c.params);
    return sums.student.loss;
  };
  test::expect_gradient(got.d_hidden, in.hidden, loss, "d_hidden");
  test::expect_gradient(got.d_table, in.table, loss, "d_table");
}

TEST(Distillation, WithoutSoftWeightItIsTheCrossEntropy) {
  for (Case c : cases()) {
    SCOPED_TRACE(c.str());
    c.params.soft_weight = 0;
    const Inputs in(c);
    const Outputs got = run(c, in);
    CrossEntropySums sums;
    Tensor d_hidden = nan_tensor({c.rows, c.width}, c.dtype), none;
    Tensor d_table = nan_tensor({c.vocabulary, c.width}, master_dtype(c.dtype));
    cross_entropy(kStream, &sums, d_hidden, d_table, Accum::write, none, in.hidden, in.table,
                  in.targets, c.params.hard);
    const double relative = 64 * test::epsilon(master_dtype(c.dtype));
    EXPECT_NEAR(got.sums.student.loss, sums.loss, relative * (1 + std::abs(sums.loss)));
    EXPECT_EQ(got.sums.student.correct, sums.correct);
    // A value on the edge between two bf16 may fall to either side.
    expect_close(got.d_hidden, d_hidden.to_vector(),
                 {4 * test::epsilon(c.dtype), 16 * test::epsilon(c.dtype) * c.params.hard.weight},
                 "d_hidden");
  }
}

TEST(Distillation, TableGradientAccumulates) {
  for (const Case& c : cases()) {
    const Inputs in(c);
    Tensor d_hidden = nan_tensor({c.rows, c.width}, c.dtype);
    DistillationSums sums;
    expect_accumulates(
        {c.vocabulary, c.width}, master_dtype(c.dtype),
        [&](Tensor& out, Accum accum) {
          distillation(kStream, &sums, d_hidden, out, accum, in.hidden, in.table, in.teacher,
                       in.targets, c.params);
        },
        c.str(), c.rows);
  }
}

TEST(Distillation, AllLogitsOfAListAreTheLogits) {
  const Case c{17, 9, 5, 40, DType::f32, {{0.3, 0.1, 1e-3, 0, 0}, 0.25, 2}};
  const Inputs whole(c);
  const Outputs want = run(c, whole);
  Inputs listed(c);
  const std::vector<double> logits =
      logits_of(whole.teacher.hidden, whole.teacher.table, whole.teacher.logit_scale);
  listed.teacher = {};
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < c.rows * c.vocabulary; ++i) {
    ids.push_back(static_cast<int32_t>(c.vocabulary - 1 - i % c.vocabulary));
  }
  std::vector<float> values;
  for (int64_t i = 0; i < c.rows * c.vocabulary; ++i) {
    const int64_t row = i / c.vocabulary;
    values.push_back(static_cast<float>(logits[row * c.vocabulary + ids[i]]));
  }
  listed.teacher.ids = Tensor::from({c.rows, c.vocabulary}, ids);
  listed.teacher.logits = Tensor::from({c.rows, c.vocabulary}, values);
  const Outputs got = run(c, listed);
  EXPECT_NEAR(got.sums.student.loss, want.sums.student.loss, 1e-5);
  expect_close(got.d_table, want.d_table.to_vector(), {1e-4, 1e-6}, "d_table");
}

TEST(Distillation, WhatIsNotListedHasNoProbability) {
  const Case c{1, 2, 2, 5, DType::f32, {{}, 1, 1}};
  Inputs in(c);
  in.targets = int_tensor({4});
  in.teacher = {};
  in.teacher.ids = Tensor::from({1, 3}, std::vector<int32_t>{3, 1, -1});
  in.teacher.logits = Tensor::from({1, 3}, std::vector<float>{0, 0, 100});
  const Outputs got = run(c, in);
  const std::vector<double> x = logits_of(in.hidden, in.table, 1);
  EXPECT_NEAR(got.sums.soft_cross_entropy, log_sum_exp(x.data(), 5, 1) - (x[1] + x[3]) / 2, 1e-5);
}

TEST(Distillation, BitsDoNotDependOnThreads) {
  for (const DType dtype : test::kFloatTypes) {
    const Case c{257, 65, 33, 513, dtype, {{0.1, 0.01, 1e-4, 0.1, 511}, 0.25, 2}};
    const Inputs in(c);
    expect_thread_invariant(
        [&] {
          const Outputs out = run(c, in);
          return std::vector<Tensor>{out.d_hidden, out.d_table,
                                     Tensor::from({1}, std::vector<double>{out.sums.student.loss})};
        },
        "distillation");
  }
}

TEST(Distillation, BadTemperaturesAndTeachersAreErrors) {
  Case c{3, 4, 4, 6, DType::f32, {}};
  Inputs in(c);
  EXPECT_NO_THROW(run(c, in));
  c.params.temperature = 0;
  EXPECT_THROW(run(c, in), Error);
  c.params = {};
  c.params.soft_weight = 1.5;
  EXPECT_THROW(run(c, in), Error);
  c.params = {};
  in.teacher.table = random_tensor({7, 4}, DType::f32, 1);
  EXPECT_THROW(run(c, in), Error);
  in.teacher = {};
  EXPECT_THROW(run(c, in), Error);
}

}  // namespace
}  // namespace sw::kernels
