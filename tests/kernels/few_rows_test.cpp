#include "libswitch/kernels/few_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_close;
using test::expect_same_bits;
using test::nan_tensor;
using test::random_tensor;

const Stream kStream;

Tensor panels_of(const Tensor& b, Transpose transpose) {
  const bool t = transpose == Transpose::yes;
  const int64_t n = b.size(t ? 0 : 1), k = b.size(t ? 1 : 0);
  Tensor panels = nan_tensor(panels_shape(n, k, b.dtype()), b.dtype());
  pack_columns(kStream, panels, b, transpose);
  return panels;
}

Tensor product(const Tensor& a, const Tensor& b, Transpose transpose) {
  Tensor c = nan_tensor({a.size(0), b.size(transpose == Transpose::yes ? 0 : 1)}, DType::f32);
  const FewRowsProduct one{c, a, panels_of(b, transpose)};
  few_rows_matmul(kStream, std::span(&one, 1));
  return c;
}

std::vector<double> reference(const Tensor& a, const Tensor& b, Transpose transpose) {
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  const bool t = transpose == Transpose::yes;
  const int64_t m = a.size(0), k = a.size(1), n = b.size(t ? 0 : 1);
  std::vector<double> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t p = 0; p < k; ++p) {
        c[static_cast<size_t>(i * n + j)] +=
            x[static_cast<size_t>(i * k + p)] * y[static_cast<size_t>(t ? j * k + p : p * n + j)];
      }
    }
  }
  return c;
}

TEST(FewRows, ProductsAgreeWithDoubleAtOddSizes) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Transpose transpose : {Transpose::no, Transpose::yes}) {
      for (const int64_t m : {1, 2, 3, 5, 17}) {
        for (const int64_t n : test::kOddSizes) {
          for (const int64_t k : test::kOddSizes) {
            const Shape shape = transpose == Transpose::yes ? Shape{n, k} : Shape{k, n};
            const Tensor a = random_tensor({m, k}, DType::f32, 1);
            const Tensor b = random_tensor(shape, dtype, 2);
            // Where bf16 are multiplied, each factor of a has its own rounding.
            test::Tolerance tolerance = test::sum_tolerance(DType::f32, k);
            if (dtype == DType::bf16) {
              tolerance.absolute += 4 * test::epsilon(dtype) * std::sqrt(static_cast<double>(k));
            }
            expect_close(product(a, b, transpose), reference(a, b, transpose), tolerance,
                         fmt::format("{}x{}x{} {}", m, n, k, dtype_name(dtype)));
          }
        }
      }
    }
  }
}

TEST(FewRows, ARowHasTheSameBitsWhateverStandsBesideIt) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Transpose transpose : {Transpose::no, Transpose::yes}) {
      const int64_t k = 131, n = 301;
      const Tensor a = random_tensor({40, k}, DType::f32, 1);
      const Tensor b =
          random_tensor(transpose == Transpose::yes ? Shape{n, k} : Shape{k, n}, dtype, 2);
      const Tensor all = product(a, b, transpose);
      for (const int64_t rows : {1, 2, 3, 4, 16}) {
        for (int64_t first = 0; first + rows <= 40; first += 5) {
          expect_same_bits(product(a.slice(first, first + rows).clone(), b, transpose),
                           all.slice(first, first + rows).clone(), "part of the rows");
        }
      }
    }
  }
}

TEST(FewRows, SeveralProductsOnAnyNumberOfThreadsAreThoseOfEach) {
  const Tensor a = random_tensor({3, 500}, DType::f32, 1);
  const Tensor x = random_tensor({500, 700}, DType::f32, 2);
  const Tensor y = random_tensor({900, 500}, DType::bf16, 3);
  test::expect_thread_invariant(
      [&] {
        Tensor first = nan_tensor({3, 700}, DType::f32), second = nan_tensor({3, 900}, DType::f32);
        const std::vector<FewRowsProduct> products{{first, a, panels_of(x, Transpose::no)},
                                                   {second, a, panels_of(y, Transpose::yes)}};
        few_rows_matmul(kStream, products);
        expect_same_bits(first, product(a, x, Transpose::no), "first");
        expect_same_bits(second, product(a, y, Transpose::yes), "second");
        return std::vector<Tensor>{first, second};
      },
      "few_rows_matmul");
}

TEST(RowsLogSumExp, AgreesWithDoubleWithoutOverflow) {
  for (const int64_t columns : {1, 7, 1024, 3001}) {
    Tensor logits = random_tensor({3, columns}, DType::f32, 1, 30);
    logits.data<float>()[columns / 2] = 500;
    Tensor log_z = nan_tensor({3}, DType::f32);
    rows_log_sum_exp(kStream, log_z, logits);
    std::vector<double> want;
    for (int64_t r = 0; r < 3; ++r) {
      const float* x = logits.data<float>() + r * columns;
      const double largest = *std::max_element(x, x + columns);
      double sum = 0;
      for (int64_t j = 0; j < columns; ++j) sum += std::exp(x[j] - largest);
      want.push_back(largest + std::log(sum));
    }
    expect_close(log_z, want, test::ulp_tolerance(DType::f32), "log Σ exp");
  }
}

TEST(CachedAttention, AgreesWithDouble) {
  const int64_t heads = 3, width = 21, inner = heads * width, cached = 30;
  const Tensor q = random_tensor({4, inner}, DType::f32, 1, 0.5);
  const Tensor keys = random_tensor({cached, inner}, DType::f32, 2, 0.5);
  const Tensor values = random_tensor({cached, inner}, DType::f32, 3);
  const Tensor bias = random_tensor({heads, 20}, DType::f32, 4);
  const std::vector<int64_t> begin{0, 1, 8, 8 + 20, 8 + 20 + 3};
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < begin.back(); ++i) rows.push_back(static_cast<int32_t>(i * 7 % cached));
  for (const bool biased : {false, true}) {
    Tensor out = nan_tensor({4, inner}, DType::f32);
    cached_attention(kStream, out, q, keys, values, biased ? bias : Tensor(),
                     CachedRows{begin, rows}, heads);
    std::vector<double> want;
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        std::vector<double> weight;
        double sum = 0;
        for (int64_t j = begin[r]; j < begin[r + 1]; ++j) {
          double score = biased ? bias.data<float>()[h * 20 + j - begin[r]] : 0;
          for (int64_t d = 0; d < width; ++d) {
            score += double{q.data<float>()[r * inner + h * width + d]} *
                     keys.data<float>()[rows[j] * inner + h * width + d];
          }
          weight.push_back(std::exp(score));
          sum += weight.back();
        }
        for (int64_t d = 0; d < width; ++d) {
          double y = 0;
          for (int64_t j = begin[r]; j < begin[r + 1]; ++j) {
            y += weight[j - begin[r]] / sum * values.data<float>()[rows[j] * inner + h * width + d];
          }
          want.push_back(y);
        }
      }
    }
    expect_close(out, want, test::sum_tolerance(DType::f32, width), "attention");
  }
}

}  // namespace
}  // namespace sw::kernels
