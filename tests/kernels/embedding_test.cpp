#include "libswitch/kernels/embedding.h"

#include <gtest/gtest.h>

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

// Skewed ids: half of them are 3, the others spread, many rows absent.
Tensor skewed_ids(int64_t count, int32_t vocabulary) {
  Tensor ids = random_ints({count}, 9, 0, vocabulary);
  for (int64_t n = 0; n < count; n += 2) ids.data<int32_t>()[n] = std::min(3, vocabulary - 1);
  return ids;
}

TEST(Embedding, ForwardCopiesTheRowsOfTheTable) {
  for (const DType dtype : test::kFloatTypes) {
    const Tensor table = random_tensor({19, 33}, dtype, 1);
    const Tensor ids = skewed_ids(65, 19);
    Tensor y = nan_tensor({65, 33}, dtype);
    embedding_forward(kStream, y, table, ids, VocabularyPart{});
    const std::vector<double> t = table.to_vector(), got = y.to_vector();
    for (int64_t n = 0; n < 65; ++n) {
      for (int64_t d = 0; d < 33; ++d) {
        ASSERT_EQ(got[n * 33 + d], t[ids.data<int32_t>()[n] * 33 + d]);
      }
    }
  }
}

TEST(Embedding, BackwardSumsTheRowsOfEveryId) {
  for (const DType dtype : test::kFloatTypes) {
    for (const int64_t width : {1, 65, 300}) {
      for (const int64_t vocabulary : {1, 19, 700}) {
        const Tensor ids = skewed_ids(130, static_cast<int32_t>(vocabulary));
        const Tensor d_y = random_tensor({130, width}, dtype, 1);
        const DType master = master_dtype(dtype);
        const Tensor d_table = expect_accumulates(
            {vocabulary, width}, master,
            [&](Tensor& out, Accum accum) {
              embedding_backward(kStream, out, accum, d_y, ids, VocabularyPart{});
            },
            "d_table", 130);
        std::vector<double> want(static_cast<size_t>(vocabulary * width), 0.0);
        const std::vector<double> d = d_y.to_vector();
        for (int64_t n = 0; n < 130; ++n) {
          for (int64_t i = 0; i < width; ++i) {
            want[ids.data<int32_t>()[n] * width + i] += d[n * width + i];
          }
        }
        expect_close(d_table, want, sum_tolerance(master, 130), "d_table");
      }
    }
  }
}

TEST(Embedding, BackwardAddsInOrderOfPositions) {
  // 2^24 + 1 + 1 in f32 is 2^24 from the left, and 2^24 + 2 in any other order.
  const Tensor d_y = Tensor::from({3, 1}, std::vector<float>{0x1p24f, 1, 1});
  Tensor d_table = nan_tensor({2, 1}, DType::f32);
  embedding_backward(kStream, d_table, Accum::write, d_y, int_tensor({1, 1, 1}), VocabularyPart{});
  EXPECT_EQ(d_table.to_vector(), (std::vector<double>{0, 0x1p24}));
}

TEST(Embedding, BitsDoNotDependOnThreads) {
  for (const DType dtype : test::kFloatTypes) {
    const Tensor ids = skewed_ids(1000, 3001), d_y = random_tensor({1000, 513}, dtype, 1);
    expect_thread_invariant(
        [&] {
          Tensor d_table = nan_tensor({3001, 513}, master_dtype(dtype));
          embedding_backward(kStream, d_table, Accum::write, d_y, ids, VocabularyPart{});
          return std::vector<Tensor>{d_table};
        },
        "embedding_backward");
  }
}

TEST(Embedding, AnIdOutsideTheTableIsAnErrorThatNamesIt) {
  const Tensor table = random_tensor({10, 4}, DType::f32, 1);
  Tensor y = nan_tensor({3, 4}, DType::f32), d_table = nan_tensor({10, 4}, DType::f32);
  for (const int32_t bad : {10, -1, INT32_MIN, INT32_MAX}) {
    const Tensor ids = int_tensor({1, 9, bad});
    try {
      embedding_forward(kStream, y, table, ids, VocabularyPart{});
      FAIL() << "id " << bad << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::usage);
      const std::string message = error.what();
      EXPECT_NE(message.find(std::to_string(bad)), std::string::npos) << message;
      EXPECT_NE(message.find("position 2"), std::string::npos) << message;
      EXPECT_NE(message.find("10 rows"), std::string::npos) << message;
    }
    EXPECT_THROW(embedding_backward(kStream, d_table, Accum::write, y, ids, VocabularyPart{}),
                 Error);
  }
}

TEST(Embedding, PartsOfTheTableTogetherAreTheTable) {
  for (const DType dtype : test::kFloatTypes) {
    const Tensor table = random_tensor({18, 33}, dtype, 1), ids = skewed_ids(700, 18);
    const Tensor d_y = random_tensor({700, 33}, dtype, 2);
    Tensor whole = nan_tensor({700, 33}, dtype);
    Tensor d_whole = nan_tensor({18, 33}, master_dtype(dtype));
    embedding_forward(kStream, whole, table, ids, VocabularyPart{});
    embedding_backward(kStream, d_whole, Accum::write, d_y, ids, VocabularyPart{});
    std::vector<double> sum(whole.elements());
    for (const int64_t first : {0, 6, 12}) {
      const VocabularyPart part{first, 18};
      Tensor y = nan_tensor({700, 33}, dtype), d_table = nan_tensor({6, 33}, master_dtype(dtype));
      embedding_forward(kStream, y, table.slice(first, first + 6), ids, part);
      embedding_backward(kStream, d_table, Accum::write, d_y, ids, part);
      expect_same_bits(d_table, d_whole.slice(first, first + 6).clone(), "gradient of a part");
      const std::vector<double> values = y.to_vector();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
    }
    EXPECT_EQ(sum, whole.to_vector());
  }
}

TEST(Embedding, AnIdOutsideTheWholeTableIsAnErrorOnEveryPart) {
  const Tensor table = random_tensor({6, 3}, DType::f32, 1);
  Tensor y = nan_tensor({1, 3}, DType::f32);
  for (const int64_t first : {0, 12}) {
    EXPECT_NO_THROW(
        embedding_forward(kStream, y, table, int_tensor({17}), VocabularyPart{first, 18}));
    EXPECT_THROW(embedding_forward(kStream, y, table, int_tensor({18}), VocabularyPart{first, 18}),
                 Error);
  }
}

TEST(Embedding, NoPositionsGiveZeros) {
  Tensor d_table = nan_tensor({4, 3}, DType::f32);
  embedding_backward(kStream, d_table, Accum::write, Tensor::empty({0, 3}, DType::f32),
                     int_tensor({}), VocabularyPart{});
  EXPECT_EQ(d_table.to_vector(), std::vector<double>(12, 0.0));
}

TEST(RelativeBias, SpreadsTheTableOverDiagonalsAndSumsBack) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor table = random_tensor({3, 8}, dtype, 1);
    const Tensor bucket_of = random_ints({129}, 2, 0, 7);  // bucket 7 is never used
    Tensor bias = nan_tensor({3, 129}, dtype);
    relative_bias_forward(kStream, bias, table, bucket_of);
    const Tensor d_bias = random_tensor({3, 129}, dtype, 3);
    const Tensor d_table = expect_accumulates(
        {3, 8}, dtype,
        [&](Tensor& out, Accum accum) {
          relative_bias_backward(kStream, out, accum, d_bias, bucket_of);
        },
        "d_table", 129);
    std::vector<double> want(24, 0.0);
    for (int64_t h = 0; h < 3; ++h) {
      for (int64_t k = 0; k < 129; ++k) {
        const int64_t b = bucket_of.data<int32_t>()[k];
        ASSERT_EQ(bias.to_vector()[h * 129 + k], table.to_vector()[h * 8 + b]);
        want[h * 8 + b] += d_bias.to_vector()[h * 129 + k];
      }
    }
    expect_close(d_table, want, sum_tolerance(dtype, 129), "d_table");
  }
}

TEST(RelativeBias, ABucketOutsideTheTableIsAnError) {
  Tensor bias = nan_tensor({1, 2}, DType::f32);
  EXPECT_THROW(relative_bias_forward(kStream, bias, random_tensor({1, 4}, DType::f32, 1),
                                     int_tensor({0, 4})),
               Error);
}

}  // namespace
}  // namespace sw::kernels
