#include "libswitch/kernels/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "libswitch/kernels/cpu/matmul_blocks.h"
#include "libswitch/kernels/cpu/matmul_panels.h"
#include "libswitch/kernels/cpu/matmul_peak.h"
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

const Stream kStream;

// op(a)·op(b) in double; rows x columns are those of the stored matrices.
std::vector<double> reference(const Tensor& a, Transpose transpose_a, const Tensor& b,
                              Transpose transpose_b) {
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  const int64_t lda = a.size(-1), ldb = b.size(-1);
  const int64_t rows_a = lda == 0 ? 0 : a.elements() / lda;
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const int64_t m = ta ? lda : rows_a, k = ta ? rows_a : lda;
  const int64_t n = tb ? b.elements() / std::max<int64_t>(ldb, 1) : ldb;
  std::vector<double> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t p = 0; p < k; ++p) {
      const double factor = x[static_cast<size_t>(ta ? p * lda + i : i * lda + p)];
      for (int64_t j = 0; j < n; ++j) {
        c[static_cast<size_t>(i * n + j)] +=
            factor * y[static_cast<size_t>(tb ? j * ldb + p : p * ldb + j)];
      }
    }
  }
  return c;
}

struct Case {
  int64_t m, n, k;
  bool ta, tb;
  std::string str() const {
    return fmt::format("m {} n {} k {}{}{}", m, n, k, ta ? " ta" : "", tb ? " tb" : "");
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  int turn = 0;
  for (const int64_t m : test::kOddSizes) {
    for (const int64_t n : test::kOddSizes) {
      for (const int64_t k : test::kOddSizes) {
        // Each size meets each layout, not each pair of sizes all four.
        all.push_back({m, n, k, (turn & 1) != 0, (turn & 2) != 0});
        ++turn;
      }
    }
  }
  all.push_back({300, 700, 65, false, false});
  all.push_back({700, 300, 17, true, false});
  all.push_back({257, 513, 129, false, true});
  all.push_back({96, 1100, 1000, true, false});
  all.push_back({50, 40, 2500, false, false});  // several chunks of k
  all.push_back({13, 70, 3001, true, true});
  all.push_back({256, 128, 40, true, false});  // few terms: written past the caches
  return all;
}

Transpose flag(bool yes) { return yes ? Transpose::yes : Transpose::no; }

void check(const Case& s, DType dtype, DType result) {
  const std::string what = s.str() + " " + dtype_name(dtype) + " to " + dtype_name(result);
  const Tensor a = random_tensor(s.ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, dtype, 1);
  const Tensor b = random_tensor(s.tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, dtype, 2);
  const Tensor c = expect_accumulates(
      Shape{s.m, s.n}, result,
      [&](Tensor& out, Accum accum) { matmul(kStream, out, a, flag(s.ta), b, flag(s.tb), accum); },
      what, s.k);
  expect_close(c, reference(a, flag(s.ta), b, flag(s.tb)), sum_tolerance(result, s.k), what);
}

TEST(Matmul, EqualsAPlainDoubleLoop) {
  for (const Case& s : cases()) {
    for (const DType dtype : test::kFloatTypes) check(s, dtype, dtype);
    check(s, DType::bf16, DType::f32);
  }
}

TEST(Matmul, FoldsLeadingDimensionsIntoRows) {
  const Tensor a = random_tensor({2, 3, 5}, DType::f32, 1);
  const Tensor b = random_tensor({5, 7}, DType::f32, 2);
  Tensor c = nan_tensor({2, 3, 7}, DType::f32);
  matmul(kStream, c, a, Transpose::no, b, Transpose::no, Accum::write);
  expect_close(c, reference(a, Transpose::no, b, Transpose::no), sum_tolerance(DType::f32, 5), "c");
}

TEST(Matmul, OfNoRowsOrNoTermsIsEmptyOrZero) {
  for (const DType dtype : test::kFloatTypes) {
    Tensor none = Tensor::empty({0, 4}, dtype);
    matmul(kStream, none, Tensor::empty({0, 3}, dtype), Transpose::no,
           random_tensor({3, 4}, dtype, 1), Transpose::no, Accum::write);
    Tensor c = nan_tensor({2, 4}, dtype);
    const Tensor a = Tensor::empty({0, 2}, dtype), b = Tensor::empty({0, 4}, dtype);
    matmul(kStream, c, a, Transpose::yes, b, Transpose::no, Accum::write);
    expect_same_bits(c, Tensor::zeros({2, 4}, dtype), "no terms");
    const Tensor before = random_tensor({2, 4}, dtype, 3);
    c = before.clone();
    matmul(kStream, c, a, Transpose::yes, b, Transpose::no, Accum::add);
    expect_same_bits(c, before, "no terms, added");
  }
}

TEST(Matmul, BitsDoNotDependOnTheNumberOfThreads) {
  for (const Case& s : {Case{1000, 768, 256, false, false}, Case{256, 1024, 2000, true, false},
                        Case{513, 770, 129, false, true}, Case{1, 3000, 64, false, true}}) {
    for (const DType dtype : test::kFloatTypes) {
      if (dtype == DType::f64 && s.m * s.n * s.k > 100'000'000) continue;
      const Tensor a = random_tensor(s.ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, dtype, 1);
      const Tensor b = random_tensor(s.tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, dtype, 2);
      expect_thread_invariant(
          [&] {
            std::vector<Tensor> results;
            for (const Accum accum : {Accum::write, Accum::add}) {
              Tensor c = random_tensor({s.m, s.n}, dtype, 3);
              matmul(kStream, c, a, flag(s.ta), b, flag(s.tb), accum);
              results.push_back(c);
            }
            return results;
          },
          s.str() + " " + dtype_name(dtype));
    }
  }
}

// An expert's rows must give the same bits whatever rows stand around them: what lets a mesh of any
// size train the same model.
TEST(Matmul, BitsOfARowDoNotDependOnOtherRows) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 300},
                             {3, 64},
                             {17, 700},
                             {65, 257},
                             {127, 256},
                             {256, 512},
                             {385, 300},
                             {769, 130},
                             {1057, 96}}) {
    for (const bool tb : {false, true}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const int64_t most = 700;
        const Tensor a = random_tensor({most, k}, dtype, 1);
        const Tensor b = random_tensor(tb ? Shape{n, k} : Shape{k, n}, dtype, 2);
        Tensor all = nan_tensor({most, n}, dtype);
        matmul(kStream, all, a, Transpose::no, b, flag(tb), Accum::write);
        for (const int64_t rows : {1, 5, 12, 31, 49, 252, 301, 505}) {
          const int64_t first = (rows * 37) % (most - rows);
          for (const int threads : {1, 7}) {
            if (threads == 7 && rows < 49) continue;
            const test::ThreadsScope scope(threads);
            Tensor some = nan_tensor({rows, n}, dtype);
            matmul(kStream, some, a.slice(first, first + rows), Transpose::no, b, flag(tb),
                   Accum::write);
            expect_same_bits(some, all.slice(first, first + rows),
                             fmt::format("rows {} of n {} k {} {}", rows, n, k, tb ? "tb" : ""));
          }
        }
      }
    }
  }
}

TEST(Matmul, AllMultipliersAgree) {
  std::vector<cpu::BlockMultiplier> others = {cpu::BlockMultiplier::primitive};
  if (cpu::has_panels<float>()) others.push_back(cpu::BlockMultiplier::panels);
  for (const Case& s : cases()) {
    const Tensor a = random_tensor(s.ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, DType::f32, 1);
    const Tensor b = random_tensor(s.tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, DType::f32, 2);
    const Tensor before = random_tensor({s.m, s.n}, DType::f32, 3);
    for (const Accum accum : {Accum::write, Accum::add}) {
      const auto product = [&](cpu::BlockMultiplier multiplier) {
        Tensor c = before.clone();
        cpu::multiply(
            {{s.m, s.n, s.k, a.raw(), a.size(1), s.ta, b.raw(), b.size(1), s.tb, c.raw(), s.n}},
            DType::f32, DType::f32, accum, multiplier);
        return c;
      };
      const Tensor expected = product(cpu::BlockMultiplier::sgemm);
      for (const auto multiplier : others) {
        expect_close(product(multiplier), expected, sum_tolerance(DType::f32, s.k), s.str());
      }
    }
  }
}

TEST(Matmul, TilesCoverEveryElementOnce) {
  for (const int threads : {1, 2, 5, 64}) {
    const std::vector<cpu::Product> products = {
        {.m = 1, .n = 1, .k = 1},          {.m = 0, .n = 5, .k = 5},
        {.m = 2048, .n = 768, .k = 768},   {.m = 513, .n = 3073, .k = 7},
        {.m = 17, .n = 32128, .k = 512},   {.m = 4000, .n = 8, .k = 0},
        {.m = 300, .n = 193, .k = 100000}, {.m = 5000, .n = 1057, .k = 64}};
    for (const auto multiplier : {cpu::BlockMultiplier::primitive, cpu::BlockMultiplier::panels}) {
      std::vector<std::vector<int>> covered;
      for (const auto& p : products) covered.emplace_back(static_cast<size_t>(p.m * p.n));
      for (const cpu::Tile& tile : cpu::cut_into_tiles(products, threads, multiplier)) {
        const cpu::Product& p = products[static_cast<size_t>(tile.product)];
        ASSERT_GT(tile.rows, 0);
        ASSERT_GT(tile.columns, 0);
        for (int64_t i = tile.row; i < tile.row + tile.rows; ++i) {
          for (int64_t j = tile.column; j < tile.column + tile.columns; ++j) {
            ++covered[static_cast<size_t>(tile.product)].at(static_cast<size_t>(i * p.n + j));
          }
        }
      }
      for (const auto& counts : covered) {
        EXPECT_TRUE(std::all_of(counts.begin(), counts.end(), [](int x) { return x == 1; }));
      }
    }
  }
}

TEST(Matmul, RefusesShapesAndTypesThatDoNotFit) {
  Tensor c = Tensor::empty({2, 4}, DType::f32);
  const Tensor a = Tensor::zeros({2, 3}, DType::f32), b = Tensor::zeros({4, 3}, DType::f32);
  EXPECT_THROW(matmul(kStream, c, a, Transpose::no, b, Transpose::no, Accum::write), Error);
  EXPECT_THROW(
      matmul(kStream, c, a, Transpose::no, b.to(DType::bf16), Transpose::yes, Accum::write), Error);
  Tensor narrow = Tensor::empty({2, 4}, DType::bf16);
  EXPECT_THROW(matmul(kStream, narrow, a, Transpose::no, b, Transpose::yes, Accum::write), Error);
}

TEST(MatmulPeak, IsARateAndKnowsItsTypes) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double peak = cpu::measure_matmul_peak(dtype, 0.001);
    EXPECT_GT(peak, 0.5);
    EXPECT_LT(peak, 1e6);
  }
  EXPECT_THROW(cpu::measure_matmul_peak(DType::f64), Error);
}

// Row counts per expert: balanced, empty ones, everything to one, nothing at all.
std::vector<std::vector<int64_t>> splits() {
  return {{3, 17, 1, 65}, {0, 5, 0, 127, 0}, {300, 0, 0}, {0, 0, 700}, {0, 0}, {1}, {260, 2, 513}};
}

Tensor offsets_of(const std::vector<int64_t>& counts) {
  std::vector<int32_t> offsets{0};
  for (const int64_t count : counts)
    offsets.push_back(offsets.back() + static_cast<int32_t>(count));
  return int_tensor(offsets);
}

TEST(GroupedMatmul, MultipliesEachExpertsRowsByItsMatrix) {
  constexpr int64_t kSpare = 3;  // rows beyond the last offset
  for (const auto& counts : splits()) {
    const auto experts = static_cast<int64_t>(counts.size());
    const int64_t used = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    for (const DType dtype : test::kFloatTypes) {
      for (const Transpose tb : {Transpose::no, Transpose::yes}) {
        const int64_t k = 33, n = 65;
        const Tensor a = random_tensor({used + kSpare, k}, dtype, 1);
        const Tensor b = random_tensor(
            tb == Transpose::yes ? Shape{experts, n, k} : Shape{experts, k, n}, dtype, 2);
        const Tensor offsets = offsets_of(counts);
        const Tensor before = random_tensor({used + kSpare, n}, dtype, 3);
        for (const Accum accum : {Accum::write, Accum::add}) {
          Tensor c = before.clone();
          grouped_matmul(kStream, c, a, b, tb, offsets, accum);
          int64_t row = 0;
          for (int64_t e = 0; e < experts; ++e) {
            const int64_t count = counts[static_cast<size_t>(e)];
            if (count == 0) continue;
            std::vector<double> want =
                reference(a.slice(row, row + count), Transpose::no, b[e], tb);
            if (accum == Accum::add) {
              const auto old = before.slice(row, row + count).to_vector();
              for (size_t i = 0; i < want.size(); ++i) want[i] += old[i];
            }
            expect_close(c.slice(row, row + count), want, sum_tolerance(dtype, k),
                         "expert " + std::to_string(e));
            row += count;
          }
          expect_same_bits(c.slice(used, used + kSpare), before.slice(used, used + kSpare),
                           "rows beyond the last offset");
        }
      }
    }
  }
}

TEST(GroupedMatmul, WeightGradientIsTheProductOverEachExpertsRows) {
  for (const auto& counts : splits()) {
    const auto experts = static_cast<int64_t>(counts.size());
    const int64_t used = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    for (const DType dtype : test::kFloatTypes) {
      const int64_t k = 65, n = 33;
      const Tensor a = random_tensor({used + 3, k}, dtype, 1);
      const Tensor d_c = random_tensor({used + 3, n}, dtype, 2);
      const Tensor offsets = offsets_of(counts);
      const Tensor d_b = expect_accumulates(
          Shape{experts, k, n}, master_dtype(dtype),
          [&](Tensor& out, Accum accum) {
            grouped_matmul_weight_gradient(kStream, out, a, d_c, offsets, accum);
          },
          "d_b", used);
      int64_t row = 0;
      for (int64_t e = 0; e < experts; ++e) {
        const int64_t count = counts[static_cast<size_t>(e)];
        expect_close(d_b[e],
                     reference(a.slice(row, row + count), Transpose::yes,
                               d_c.slice(row, row + count), Transpose::no),
                     sum_tolerance(master_dtype(dtype), count), "expert " + std::to_string(e));
        row += count;
      }
    }
  }
}

TEST(GroupedMatmul, BitsDoNotDependOnTheNumberOfThreads) {
  for (const auto& counts : {std::vector<int64_t>{1000, 0, 3, 200}, {0, 700, 0}}) {
    const auto experts = static_cast<int64_t>(counts.size());
    const int64_t used = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Tensor a = random_tensor({used, 96}, dtype, 1);
      const Tensor b = random_tensor({experts, 96, 130}, dtype, 2);
      const Tensor d_c = random_tensor({used, 130}, dtype, 3);
      const Tensor offsets = offsets_of(counts);
      expect_thread_invariant(
          [&] {
            Tensor c = nan_tensor({used, 130}, dtype);
            grouped_matmul(kStream, c, a, b, Transpose::no, offsets, Accum::write);
            Tensor d_b = nan_tensor({experts, 96, 130}, DType::f32);
            grouped_matmul_weight_gradient(kStream, d_b, a, d_c, offsets, Accum::write);
            return std::vector<Tensor>{c, d_b};
          },
          dtype_name(dtype));
    }
  }
}

TEST(GroupedMatmul, RefusesOffsetsThatFallOrExceedTheRows) {
  Tensor c = Tensor::empty({4, 2}, DType::f32);
  const Tensor a = Tensor::zeros({4, 3}, DType::f32), b = Tensor::zeros({2, 3, 2}, DType::f32);
  for (const auto& offsets : {std::vector<int32_t>{0, 3, 5}, {0, 3, 2}, {1, 2, 3}, {0, 4}}) {
    EXPECT_THROW(grouped_matmul(kStream, c, a, b, Transpose::no, int_tensor(offsets), Accum::write),
                 Error);
  }
}

}  // namespace
}  // namespace sw::kernels
