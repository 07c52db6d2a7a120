// Embedding and cross-entropy with the vocabulary cut over the model axis, against one rank.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "libswitch/base/error.h"
#include "libswitch/comm/local/threads.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/ops/embedding.h"
#include "tests/support/kernel_case.h"
#include "tests/support/model_ranks.h"

namespace sw::test {
namespace {

constexpr int64_t kRanks[] = {1, 2, 4};

Var table_leaf(const Tensor& table) {
  return Var(table,
             std::make_shared<GradientSlot>(table.shape(), master_dtype(table.dtype()), Device{}));
}

TEST(VocabularyParallel, EmbeddingHasTheBitsOfOneRank) {
  for (const DType dtype : kFloatTypes) {
    const Tensor table = random_tensor({20, 9}, dtype, 1), d_y = random_tensor({65, 9}, dtype, 2);
    const Tensor ids = random_ints({65}, 3, 0, 20);
    const auto run = [&](Context& context, const Tensor& rows, Tensor& y) {
      const Var leaf = table_leaf(rows);
      const Var out = ops::embedding(context, leaf, ids);
      y = out.value();
      out.slot()->adopt(context.stream, d_y);
      context.tape->backward();
      return leaf.slot()->gradient();
    };
    Tensor want_y, want_gradient;
    on_model_ranks(
        1, [&](Context& context, MeshPart) { want_gradient = run(context, table, want_y); });
    for (const int64_t ranks : kRanks) {
      on_model_ranks(ranks, [&](Context& context, MeshPart part) {
        Tensor y;
        const Tensor gradient = run(context, rows_of(table, part), y);
        expect_same_bits(y, want_y, "embedding");
        expect_same_bits(gradient, rows_of(want_gradient, part), "gradient of the table");
      });
    }
  }
}

TEST(VocabularyParallel, AnIdOutsideTheVocabularyIsAnErrorAndOneOfAnotherRankIsNot) {
  const Tensor table = random_tensor({20, 9}, DType::f32, 1);
  for (const int64_t ranks : kRanks) {
    on_model_ranks(ranks, [&](Context& context, MeshPart part) {
      const Var rows(rows_of(table, part));
      EXPECT_NO_THROW(ops::embedding(context, rows, int_tensor({0, 19})));
      EXPECT_THROW(ops::embedding(context, rows, int_tensor({0, 20})), Error);
    });
  }
}

struct Case {
  int64_t rows, width, vocabulary;
  DType dtype;
  kernels::CrossEntropyParams params;
  std::string str() const {
    return fmt::format("N {} D {} V {} ({}) {} z {} smoothing {}", rows, width, vocabulary,
                       params.vocab_size, dtype_name(dtype), params.z_loss, params.label_smoothing);
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : kFloatTypes) {
    all.push_back({1, 3, 4, dtype, {}});
    all.push_back({65, 17, 128, dtype, {0.25, 1.0 / 44, 0, 0, 0}});
    all.push_back({33, 65, 132, dtype, {0.125, 0.1, 1e-2, 0, 127}});
    // The last quarter of the table is padding: a rank without any class.
    all.push_back({17, 33, 132, dtype, {0.2, 1, 1e-3, 0.1, 99}});
  }
  return all;
}

struct Inputs {
  Tensor hidden, table, targets;
  explicit Inputs(const Case& c) {
    hidden = random_tensor({c.rows, c.width}, c.dtype, 1);
    table = random_tensor({c.vocabulary, c.width}, c.dtype, 2);
    const int64_t classes = c.params.vocab_size == 0 ? c.vocabulary : c.params.vocab_size;
    targets = random_ints({c.rows}, 3, 0, static_cast<int32_t>(classes));
    for (int64_t n = 2; n < c.rows; n += 3) targets.data<int32_t>()[n] = -1;
    // Every second of the others is predicted right.
    for (int64_t n = 0; n < c.rows; n += 2) {
      const int64_t id = targets.data<int32_t>()[n];
      if (id < 0) continue;
      Tensor row = hidden.slice(n, n + 1);
      kernels::scale(Stream{}, row, table.slice(id, id + 1), 3.0, Accum::write);
    }
  }
};

struct Outputs {
  kernels::CrossEntropySums sums;
  Tensor d_hidden, d_table, logits;
};

// On this rank, with its rows of the table.
Outputs run(Context& context, const Inputs& in, const kernels::CrossEntropyParams& params,
            MeshPart part, bool want_logits = false) {
  const Var hidden = Var::leaf(in.hidden), table = table_leaf(rows_of(in.table, part));
  Outputs out;
  if (want_logits) {
    out.logits = nan_tensor({in.hidden.size(0), in.table.size(0)}, master_dtype(in.table.dtype()));
  }
  out.sums = ops::cross_entropy(context, hidden, table, in.targets, params, out.logits);
  context.tape->backward();
  out.d_hidden = hidden.slot()->gradient();
  out.d_table = table.slot()->gradient();
  return out;
}

Outputs run_alone(const Inputs& in, const kernels::CrossEntropyParams& params,
                  bool want_logits = false) {
  Outputs out;
  on_model_ranks(1, [&](Context& context, MeshPart part) {
    out = run(context, in, params, part, want_logits);
  });
  return out;
}

// Each element is a sum of terms rounded to dtype that are about as large as the largest element.
Tolerance tolerance_of(const Tensor& want, DType dtype, int64_t terms) {
  double largest = 0;
  for (const double x : want.to_vector()) largest = std::max(largest, std::abs(x));
  const double sum = 16 * static_cast<double>(terms) * epsilon(master_dtype(want.dtype()));
  return {0, largest * (2 * epsilon(dtype) + sum)};
}

void expect_close_sums(const kernels::CrossEntropySums& got, const kernels::CrossEntropySums& want,
                       double relative) {
  EXPECT_EQ(got.targets, want.targets);
  EXPECT_EQ(got.correct, want.correct);
  EXPECT_NEAR(got.loss, want.loss, relative * (1 + std::abs(want.loss)));
  EXPECT_NEAR(got.log_likelihood, want.log_likelihood,
              relative * (1 + std::abs(want.log_likelihood)));
  EXPECT_NEAR(got.z_loss, want.z_loss, relative * (1 + want.z_loss));
}

TEST(VocabularyParallel, CrossEntropyIsThatOfOneRank) {
  for (const Case& c : cases()) {
    const Inputs in(c);
    const Outputs want = run_alone(in, c.params, true);
    EXPECT_GE(want.sums.correct, c.rows / 4);
    for (const int64_t ranks : kRanks) {
      on_model_ranks(ranks, [&](Context& context, MeshPart part) {
        SCOPED_TRACE(c.str() + fmt::format(" on {} ranks", ranks));
        const Outputs got = run(context, in, c.params, part, true);
        expect_close_sums(got.sums, want.sums,
                          16 * epsilon(master_dtype(c.dtype)) * static_cast<double>(c.width));
        expect_close(got.d_hidden, want.d_hidden, tolerance_of(want.d_hidden, c.dtype, c.width),
                     "d_hidden");
        expect_close(got.d_table, rows_of(want.d_table, part),
                     tolerance_of(want.d_table, c.dtype, c.width), "d_table");
        expect_close(got.logits, want.logits,
                     tolerance_of(want.logits, master_dtype(c.dtype), c.width), "logits");
        expect_alike(context, got.d_hidden, "d_hidden");
        expect_alike(context,
                     Tensor::from({3}, std::vector<double>{got.sums.loss, got.sums.log_likelihood,
                                                           got.sums.z_loss}),
                     "sums");
        EXPECT_NO_THROW(run(context, in, c.params, part)) << "without logits";
      });
    }
  }
}

TEST(VocabularyParallel, OneRankKeepsTheBitsOfTheKernel) {
  for (const Case& c : cases()) {
    const Inputs in(c);
    const Outputs got = run_alone(in, c.params);
    Tensor d_hidden = nan_tensor(in.hidden.shape(), c.dtype), none;
    Tensor d_table = nan_tensor(in.table.shape(), master_dtype(c.dtype));
    kernels::CrossEntropySums sums;
    kernels::cross_entropy(Stream{}, &sums, d_hidden, d_table, Accum::write, none, in.hidden,
                           in.table, in.targets, c.params);
    EXPECT_EQ(got.sums.loss, sums.loss);
    expect_same_bits(got.d_hidden, d_hidden, "d_hidden");
    expect_same_bits(got.d_table, d_table, "d_table");
  }
}

TEST(VocabularyParallel, SeveralChunksOfRowsAreGatheredOneByOne) {
  const Case c{1500, 8, 30000, DType::f32, {0.3, 0.01, 1e-3, 0, 0}};
  const Inputs in(c);
  const Outputs want = run_alone(in, c.params);
  on_model_ranks(2, [&](Context& context, MeshPart part) {
    const Outputs got = run(context, in, c.params, part);
    expect_close_sums(got.sums, want.sums, 1e-6);
    expect_close(got.d_hidden, want.d_hidden, tolerance_of(want.d_hidden, c.dtype, c.width),
                 "d_hidden");
    expect_close(got.d_table, rows_of(want.d_table, part),
                 tolerance_of(want.d_table, c.dtype, c.width), "d_table");
  });
}

TEST(VocabularyParallel, GradientsAgreeWithFiniteDifferences) {
  const Case c{7, 5, 24, DType::f64, {0.4, 0.3, 0.05, 0.1, 19}};
  Inputs in(c);
  Tensor d_hidden, d_table = nan_tensor(in.table.shape(), DType::f64);
  std::mutex mutex;
  on_model_ranks(4, [&](Context& context, MeshPart part) {
    const Outputs out = run(context, in, c.params, part);
    const std::lock_guard lock(mutex);
    d_hidden = out.d_hidden;
    Tensor rows = d_table.slice(part.begin(24), part.begin(24) + part.count(24));
    kernels::cast(Stream{}, rows, out.d_table);
  });
  const auto loss = [&] {
    double value = 0;
    run_ranks(4, [&](World& world) {
      const Mesh mesh(world, {1, 1, 4});
      Context context;
      context.mesh = &mesh;
      const double mine =
          ops::cross_entropy(context, Var(in.hidden), Var(rows_of(in.table, mesh.model_part())),
                             in.targets, c.params)
              .loss;
      if (world.rank() == 0) value = mine;
    });
    return value;
  };
  expect_gradient(d_hidden, in.hidden, loss, "hidden", 12);
  expect_gradient(d_table, in.table, loss, "table", 24);
}

// Rows of one-dimensional hidden states make logits out of the table's entries.
kernels::CrossEntropySums with_logits(const std::vector<float>& logits, int32_t target,
                                      int64_t ranks) {
  kernels::CrossEntropySums sums;
  const Tensor table = Tensor::from({static_cast<int64_t>(logits.size()), 1}, logits);
  on_model_ranks(ranks, [&](Context& context, MeshPart part) {
    context.tape = nullptr;
    const kernels::CrossEntropySums mine =
        ops::cross_entropy(context, Var(Tensor::from({1, 1}, std::vector<float>{1})),
                           Var(rows_of(table, part)), int_tensor({target}), {});
    if (part.index == 0) sums = mine;
  });
  return sums;
}

TEST(VocabularyParallel, ATieIsCorrectForTheLowestIndexOfAllRanks) {
  for (const int64_t ranks : kRanks) {
    for (int32_t target = 0; target < 4; ++target) {
      EXPECT_EQ(with_logits({0, 2, 1, 2}, target, ranks).correct, target == 1 ? 1 : 0)
          << target << " of " << ranks;
      EXPECT_EQ(with_logits({2, 2, 2, 2}, target, ranks).correct, target == 0 ? 1 : 0)
          << target << " of " << ranks;
      EXPECT_EQ(with_logits({1, 0, 0, 3}, target, ranks).correct, target == 3 ? 1 : 0)
          << target << " of " << ranks;
    }
  }
}

TEST(VocabularyParallel, LargeLogitsOfAnotherRankNeitherOverflowNorVanish) {
  for (const int64_t ranks : kRanks) {
    EXPECT_NEAR(with_logits({1000, -1000, 999, -1000}, 2, ranks).loss,
                1 + std::log1p(std::exp(-1.0)), 1e-6);
    EXPECT_NEAR(with_logits({-1000, -1000, -1000, 1000}, 3, ranks).loss, 0, 1e-6);
  }
}

TEST(VocabularyParallel, ANanOfAnotherRankShowsInTheLoss) {
  for (const int64_t ranks : kRanks) {
    EXPECT_TRUE(std::isnan(with_logits({0, std::nanf(""), 1, 2}, 3, ranks).loss)) << ranks;
  }
}

TEST(VocabularyParallel, NoTargetsGiveZeros) {
  on_model_ranks(2, [](Context& context, MeshPart part) {
    Inputs in(Case{3, 4, 8, DType::bf16, {}});
    in.targets = int_tensor({-1, -1, -1});
    const Outputs out = run(context, in, {}, part);
    EXPECT_EQ(out.sums.targets, 0);
    EXPECT_EQ(out.sums.loss, 0);
    EXPECT_EQ(out.d_hidden.to_vector(), std::vector<double>(12, 0.0));
    EXPECT_EQ(out.d_table.to_vector(), std::vector<double>(16, 0.0));
  });
}

TEST(VocabularyParallel, ATargetOutsideTheVocabularyIsAnErrorOnEveryRank) {
  on_model_ranks(2, [](Context& context, MeshPart part) {
    Inputs in(Case{1, 4, 8, DType::f32, {}});
    in.targets = int_tensor({8});
    EXPECT_THROW(run(context, in, {}, part), Error);
  });
}

}  // namespace
}  // namespace sw::test
