#include "libswitch/kernels/cross_entropy.h"

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
using test::sum_tolerance;

const Stream kStream;

struct Case {
  int64_t rows, width, vocabulary;
  DType dtype;
  CrossEntropyParams params;
  std::string str() const {
    return fmt::format("N {} D {} V {} ({}) {} z {} smoothing {}", rows, width, vocabulary,
                       params.vocab_size, dtype_name(dtype), params.z_loss, params.label_smoothing);
  }
};

struct Inputs {
  Tensor hidden, table, targets;
  explicit Inputs(const Case& c) {
    hidden = random_tensor({c.rows, c.width}, c.dtype, 1);
    table = random_tensor({c.vocabulary, c.width}, c.dtype, 2);
    const int64_t classes = c.params.vocab_size == 0 ? c.vocabulary : c.params.vocab_size;
    targets = random_ints({c.rows}, 3, 0, static_cast<int32_t>(classes));
    for (int64_t n = 2; n < c.rows; n += 3) targets.data<int32_t>()[n] = -1;
  }
};

struct Outputs {
  CrossEntropySums sums;
  Tensor d_hidden, d_table, logits;
};

Outputs run(const Case& c, const Inputs& in) {
  Outputs out;
  out.d_hidden = nan_tensor({c.rows, c.width}, c.dtype);
  out.d_table = nan_tensor({c.vocabulary, c.width}, master_dtype(c.dtype));
  Tensor none;
  cross_entropy(kStream, &out.sums, out.d_hidden, out.d_table, Accum::write, none, in.hidden,
                in.table, in.targets, c.params);
  return out;
}

// Everything in double from the definition.
struct Reference {
  CrossEntropySums sums;
  std::vector<double> d_hidden, d_table, logits;
};

Reference reference(const Case& c, const Inputs& in) {
  const CrossEntropyParams& p = c.params;
  const int64_t classes = p.vocab_size == 0 ? c.vocabulary : p.vocab_size;
  const std::vector<double> h = in.hidden.to_vector(), w = in.table.to_vector();
  Reference r;
  r.d_hidden.resize(h.size());
  r.d_table.resize(w.size());
  r.logits.resize(static_cast<size_t>(c.rows * c.vocabulary));
  for (int64_t n = 0; n < c.rows; ++n) {
    double* x = r.logits.data() + n * c.vocabulary;
    for (int64_t v = 0; v < c.vocabulary; ++v) {
      for (int64_t d = 0; d < c.width; ++d) x[v] += h[n * c.width + d] * w[v * c.width + d];
      x[v] *= p.logit_scale;
    }
    const int64_t target = in.targets.data<int32_t>()[n];
    if (target < 0) continue;
    const double top = *std::max_element(x, x + classes);
    double z = 0;
    for (int64_t v = 0; v < classes; ++v) z += std::exp(x[v] - top);
    const double log_z = top + std::log(z);
    double cross_entropy = 0;
    for (int64_t v = 0; v < classes; ++v) {
      const double q = (1 - p.label_smoothing) * (v == target) +
                       p.label_smoothing / static_cast<double>(classes);
      cross_entropy -= q * (x[v] - log_z);
      const double d = p.weight * (std::exp(x[v] - log_z) * (1 + 2 * p.z_loss * log_z) - q);
      for (int64_t i = 0; i < c.width; ++i) {
        r.d_hidden[n * c.width + i] += p.logit_scale * d * w[v * c.width + i];
        r.d_table[v * c.width + i] += p.logit_scale * d * h[n * c.width + i];
      }
    }
    r.sums.targets += 1;
    r.sums.correct += x[target] == top;
    r.sums.log_likelihood += x[target] - log_z;
    r.sums.z_loss += p.weight * p.z_loss * log_z * log_z;
    r.sums.loss += p.weight * (cross_entropy + p.z_loss * log_z * log_z);
  }
  return r;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : test::kFloatTypes) {
    all.push_back({1, 3, 1, dtype, {}});
    all.push_back({65, 17, 127, dtype, {0.25, 1.0 / 44, 0, 0, 0}});
    all.push_back({33, 65, 130, dtype, {0.125, 0.1, 1e-2, 0, 127}});
    all.push_back({17, 33, 70, dtype, {0.2, 1, 1e-3, 0.1, 65}});
  }
  return all;
}

TEST(CrossEntropy, EqualsThePlainFormula) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.str());
    const Inputs in(c);
    const Outputs got = run(c, in);
    const Reference want = reference(c, in);
    const DType master = master_dtype(c.dtype);
    const double relative = 16 * test::epsilon(master) * static_cast<double>(c.width);
    EXPECT_EQ(got.sums.targets, want.sums.targets);
    EXPECT_EQ(got.sums.correct, want.sums.correct);
    EXPECT_NEAR(got.sums.loss, want.sums.loss, relative * (1 + std::abs(want.sums.loss)));
    EXPECT_NEAR(got.sums.log_likelihood, want.sums.log_likelihood,
                relative * (1 + std::abs(want.sums.log_likelihood)));
    EXPECT_NEAR(got.sums.z_loss, want.sums.z_loss, relative * (1 + want.sums.z_loss));
    // Each gradient is a sum of products of a d_logits rounded to dtype; together its terms have
    // about the size of weight · logit_scale.
    const double size = c.params.weight * c.params.logit_scale;
    expect_close(got.d_hidden, want.d_hidden,
                 {2 * test::epsilon(c.dtype),
                  size * (16 * test::epsilon(c.dtype) +
                          16 * static_cast<double>(c.width) * test::epsilon(master))},
                 "d_hidden");
    expect_close(got.d_table, want.d_table,
                 {2 * test::epsilon(c.dtype),
                  size * (16 * test::epsilon(c.dtype) +
                          16 * static_cast<double>(c.width) * test::epsilon(master))},
                 "d_table");
    for (int64_t n = 2; n < c.rows; n += 3) {
      for (int64_t d = 0; d < c.width; ++d) {
        ASSERT_EQ(got.d_hidden.to_vector()[n * c.width + d], 0) << "row " << n << " has no target";
      }
    }
  }
}

TEST(CrossEntropy, TableGradientAccumulates) {
  for (const Case& c : cases()) {
    const Inputs in(c);
    Tensor d_hidden = nan_tensor({c.rows, c.width}, c.dtype), none;
    CrossEntropySums sums;
    expect_accumulates(
        {c.vocabulary, c.width}, master_dtype(c.dtype),
        [&](Tensor& out, Accum accum) {
          cross_entropy(kStream, &sums, d_hidden, out, accum, none, in.hidden, in.table, in.targets,
                        c.params);
        },
        c.str(), c.rows);
  }
}

TEST(CrossEntropy, LossAloneAndLogitsAgreeWithTheFullCall) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.str());
    const Inputs in(c);
    const Outputs full = run(c, in);
    Tensor none, no_table, logits = nan_tensor({c.rows, c.vocabulary}, master_dtype(c.dtype));
    CrossEntropySums sums;
    cross_entropy(kStream, &sums, none, no_table, Accum::write, logits, in.hidden, in.table,
                  in.targets, c.params);
    // With logits asked for, rows without target take part in the products too, which may then sum
    // in another order.
    const double relative = 16 * test::epsilon(master_dtype(c.dtype));
    EXPECT_NEAR(sums.loss, full.sums.loss, relative * std::abs(full.sums.loss));
    EXPECT_EQ(sums.correct, full.sums.correct);
    EXPECT_NEAR(sums.log_likelihood, full.sums.log_likelihood,
                relative * std::abs(full.sums.log_likelihood));
    expect_close(logits, reference(c, in).logits, sum_tolerance(master_dtype(c.dtype), c.width, 4),
                 "logits");
    Tensor d_hidden = nan_tensor({c.rows, c.width}, c.dtype);
    cross_entropy(kStream, &sums, d_hidden, no_table, Accum::write, none, in.hidden, in.table,
                  in.targets, c.params);
    expect_same_bits(d_hidden, full.d_hidden, "d_hidden without d_table");
  }
}

TEST(CrossEntropy, GradientsAgreeWithFiniteDifferences) {
  const Case c{9, 7, 21, DType::f64, {0.4, 0.3, 0.05, 0.1, 19}};
  Inputs in(c);
  const Outputs got = run(c, in);
  Tensor none, no_table, no_logits;
  const auto loss = [&] {
    CrossEntropySums sums;
    cross_entropy(kStream, &sums, none, no_table, Accum::write, no_logits, in.hidden, in.table,
                  in.targets, c.params);
    return sums.loss;
  };
  test::expect_gradient(got.d_hidden, in.hidden, loss, "d_hidden");
  test::expect_gradient(got.d_table, in.table, loss, "d_table");
}

// Rows of one-dimensional hidden states make logits out of the table's entries.
CrossEntropySums with_logits(const std::vector<float>& logits, int32_t target) {
  CrossEntropySums sums;
  Tensor none, no_table, no_logits;
  cross_entropy(kStream, &sums, none, no_table, Accum::write, no_logits,
                Tensor::from({1, 1}, std::vector<float>{1}),
                Tensor::from({static_cast<int64_t>(logits.size()), 1}, logits),
                int_tensor({target}), CrossEntropyParams{});
  return sums;
}

TEST(CrossEntropy, ATieIsCorrectForTheLowestIndexOnly) {
  EXPECT_EQ(with_logits({0, 2, 1, 2}, 1).correct, 1);
  EXPECT_EQ(with_logits({0, 2, 1, 2}, 3).correct, 0);
  EXPECT_EQ(with_logits({0, 2, 1, 2}, 2).correct, 0);
}

TEST(CrossEntropy, IsStableForLargeLogits) {
  const CrossEntropySums sums = with_logits({1000, 999, -1000}, 1);
  EXPECT_NEAR(sums.loss, 1 + std::log1p(std::exp(-1.0)), 1e-6);
}

TEST(CrossEntropy, ANanShowsInTheLoss) {
  EXPECT_TRUE(std::isnan(with_logits({0, std::nanf(""), 1}, 2).loss));
}

TEST(CrossEntropy, RowsBeyondOneChunkContinueTheSums) {
  // Enough rows and classes for several chunks of logits.
  const Case c{1500, 8, 30000, DType::f32, {0.3, 0.01, 0, 0, 0}};
  const Inputs in(c);
  const Outputs got = run(c, in);
  CrossEntropySums halves;
  Tensor d_table = nan_tensor({c.vocabulary, c.width}, DType::f32), none;
  Tensor d_hidden = nan_tensor({c.rows, c.width}, DType::f32);
  double loss = 0;
  for (int64_t begin = 0; begin < c.rows; begin += 500) {
    Tensor d_part = d_hidden.slice(begin, begin + 500);
    cross_entropy(kStream, &halves, d_part, d_table, begin == 0 ? Accum::write : Accum::add, none,
                  in.hidden.slice(begin, begin + 500), in.table,
                  in.targets.slice(begin, begin + 500), c.params);
    loss += halves.loss;
  }
  EXPECT_NEAR(got.sums.loss, loss, 1e-7 * loss);
  expect_close(d_hidden, got.d_hidden, {1e-5, 1e-7}, "d_hidden");
  expect_close(d_table, got.d_table, {1e-4, 1e-7}, "d_table");
}

TEST(CrossEntropy, NoTargetsGiveZeros) {
  const Tensor hidden = random_tensor({3, 4}, DType::bf16, 1);
  const Tensor table = random_tensor({5, 4}, DType::bf16, 2);
  Tensor d_hidden = nan_tensor({3, 4}, DType::bf16), d_table = nan_tensor({5, 4}, DType::f32), none;
  CrossEntropySums sums;
  cross_entropy(kStream, &sums, d_hidden, d_table, Accum::write, none, hidden, table,
                int_tensor({-1, -1, -1}), CrossEntropyParams{});
  EXPECT_EQ(sums.targets, 0);
  EXPECT_EQ(sums.loss, 0);
  EXPECT_EQ(d_hidden.to_vector(), std::vector<double>(12, 0.0));
  EXPECT_EQ(d_table.to_vector(), std::vector<double>(20, 0.0));
}

TEST(CrossEntropy, BitsDoNotDependOnThreads) {
  for (const DType dtype : test::kFloatTypes) {
    const Case c{257, 65, 513, dtype, {0.1, 0.01, 1e-4, 0.1, 511}};
    const Inputs in(c);
    expect_thread_invariant(
        [&] {
          const Outputs out = run(c, in);
          return std::vector<Tensor>{
              out.d_hidden, out.d_table,
              Tensor::from({2}, std::vector<double>{out.sums.loss, out.sums.log_likelihood})};
        },
        "cross_entropy");
  }
}

TEST(CrossEntropy, BadTargetsAndSizesAreErrors) {
  const Tensor hidden = random_tensor({2, 4}, DType::f32, 1);
  const Tensor table = random_tensor({5, 4}, DType::f32, 2);
  Tensor d_hidden, d_table, logits;
  CrossEntropySums sums;
  const auto call = [&](const std::vector<int32_t>& targets, int64_t vocabulary) {
    CrossEntropyParams params;
    params.vocab_size = vocabulary;
    cross_entropy(kStream, &sums, d_hidden, d_table, Accum::write, logits, hidden, table,
                  int_tensor(targets), params);
  };
  EXPECT_NO_THROW(call({4, -1}, 0));
  EXPECT_THROW(call({5, 0}, 0), Error);
  EXPECT_THROW(call({4, 0}, 4), Error);
  EXPECT_THROW(call({-2, 0}, 0), Error);
  EXPECT_THROW(call({0, 0}, 6), Error);
  EXPECT_THROW(call({0}, 0), Error);
}

}  // namespace
}  // namespace sw::kernels
