// The borders of the model axis: what they give and what their gradients are, by the definition.
#include "libswitch/ops/model_parallel.h"

#include <gtest/gtest.h>

#include "libswitch/base/error.h"
#include "libswitch/ops/activation.h"
#include "tests/support/kernel_case.h"
#include "tests/support/model_ranks.h"

namespace sw::test {
namespace {

constexpr int64_t kRanks[] = {2, 3, 4};
constexpr int64_t kRows = 5, kColumns = 12;
using Border = Var (*)(Context&, const Var&);

// Small whole numbers: their sums are exact in every dtype, in any order.
Tensor whole_numbers(const Shape& shape, DType dtype, uint64_t seed) {
  const Tensor ints = random_ints(shape, seed, -8, 9);
  std::vector<double> values = ints.to_vector();
  return Tensor::from(shape, values).to(dtype);
}
Tensor share_of(int64_t rank, int64_t columns, DType dtype) {
  return whole_numbers({kRows, columns}, dtype, 100 + static_cast<uint64_t>(rank));
}
Tensor sum_of_shares(int64_t ranks, int64_t columns, DType dtype) {
  std::vector<double> sum(static_cast<size_t>(kRows * columns));
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const std::vector<double> share = share_of(rank, columns, dtype).to_vector();
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += share[i];
  }
  return Tensor::from({kRows, columns}, sum).to(dtype);
}
// The ranks' shares side by side.
Tensor joined_shares(int64_t ranks, int64_t columns, DType dtype) {
  std::vector<double> joined;
  for (int64_t n = 0; n < kRows; ++n) {
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const std::vector<double> share = share_of(rank, columns, dtype).to_vector();
      joined.insert(joined.end(), share.begin() + n * columns, share.begin() + (n + 1) * columns);
    }
  }
  return Tensor::from({kRows, ranks * columns}, joined).to(dtype);
}

struct Passed {
  Tensor output, gradient;
};
// Through the border and back with `d_output`.
Passed pass(Context& context, Border border, const Tensor& x, const Tensor& d_output) {
  const Var in = Var::leaf(x.clone());
  const Var out = border(context, in);
  Passed passed;
  passed.output = out.value().clone();
  out.slot()->adopt(context.stream, d_output);
  context.tape->backward();
  passed.gradient = in.slot()->gradient();
  return passed;
}

void for_all(const std::function<void(Context&, MeshPart, DType)>& check) {
  for (const int64_t ranks : kRanks) {
    for (const DType dtype : kFloatTypes) {
      on_model_ranks(ranks, [&](Context& c, MeshPart part) { check(c, part, dtype); });
    }
  }
}

TEST(ModelParallel, OneRankGetsItsInputBackAndRecordsNothing) {
  on_model_ranks(1, [](Context& context, MeshPart) {
    for (const Border border : {ops::copy_to_model, ops::sum_over_model,
                                ops::slice_columns_over_model, ops::gather_columns_over_model,
                                ops::gather_columns_to_model, ops::sum_and_slice_over_model}) {
      const Var x = Var::leaf(random_tensor({3, 4}, DType::f32, 1));
      const Var y = border(context, x);
      EXPECT_EQ(y.value().raw(), x.value().raw());
      EXPECT_EQ(y.slot(), x.slot());
      EXPECT_TRUE(context.tape->empty());
    }
  });
}

TEST(ModelParallel, CopySumsGradients) {
  for_all([](Context& context, MeshPart part, DType dtype) {
    const Tensor x = random_tensor({kRows, kColumns}, dtype, 1);
    const Passed passed =
        pass(context, ops::copy_to_model, x, share_of(part.index, kColumns, dtype));
    expect_same_bits(passed.output, x, "output");
    expect_same_bits(passed.gradient, sum_of_shares(part.parts, kColumns, dtype), "gradient");
  });
}

TEST(ModelParallel, CopyLeavesAGradientThatOthersHoldAlone) {
  on_model_ranks(2, [](Context& context, MeshPart part) {
    const Tensor share = share_of(part.index, kColumns, DType::f32);
    const Tensor kept = share.clone();
    const Var x = Var::leaf(random_tensor({kRows, kColumns}, DType::f32, 1));
    ops::copy_to_model(context, x).slot()->adopt(context.stream, share);
    context.tape->backward();
    expect_same_bits(share, kept, "the adopted tensor");
  });
}

TEST(ModelParallel, SumPassesGradients) {
  for_all([](Context& context, MeshPart part, DType dtype) {
    const Tensor d = random_tensor({kRows, kColumns}, dtype, 2);
    const Passed passed =
        pass(context, ops::sum_over_model, share_of(part.index, kColumns, dtype), d);
    expect_same_bits(passed.output, sum_of_shares(part.parts, kColumns, dtype), "output");
    expect_same_bits(passed.gradient, d, "gradient");
  });
}

TEST(ModelParallel, SliceGathersGradients) {
  for_all([](Context& context, MeshPart part, DType dtype) {
    const Tensor x = random_tensor({kRows, kColumns}, dtype, 1);
    const int64_t columns = kColumns / part.parts;
    const Passed passed =
        pass(context, ops::slice_columns_over_model, x, share_of(part.index, columns, dtype));
    expect_same_bits(passed.output, columns_of(x, part), "output");
    expect_same_bits(passed.gradient, joined_shares(part.parts, columns, dtype), "gradient");
  });
}

TEST(ModelParallel, GatherSlicesGradients) {
  for_all([](Context& context, MeshPart part, DType dtype) {
    const Tensor d = random_tensor({kRows, kColumns}, dtype, 2);
    const int64_t columns = kColumns / part.parts;
    const Passed passed =
        pass(context, ops::gather_columns_over_model, share_of(part.index, columns, dtype), d);
    expect_same_bits(passed.output, joined_shares(part.parts, columns, dtype), "output");
    expect_same_bits(passed.gradient, columns_of(d, part), "gradient");
  });
}

TEST(ModelParallel, GatherForPartsSumsAndSlicesGradients) {
  for_all([](Context& context, MeshPart part, DType dtype) {
    const int64_t columns = kColumns / part.parts;
    const Passed passed =
        pass(context, ops::gather_columns_to_model, share_of(part.index, columns, dtype),
             share_of(part.index, kColumns, dtype));
    expect_same_bits(passed.output, joined_shares(part.parts, columns, dtype), "output");
    expect_same_bits(passed.gradient, columns_of(sum_of_shares(part.parts, kColumns, dtype), part),
                     "gradient");
  });
}

TEST(ModelParallel, SumAndSliceGathersGradients) {
  for_all([](Context& context, MeshPart part, DType dtype) {
    const int64_t columns = kColumns / part.parts;
    const Passed passed =
        pass(context, ops::sum_and_slice_over_model, share_of(part.index, kColumns, dtype),
             share_of(part.index, columns, dtype));
    expect_same_bits(passed.output, columns_of(sum_of_shares(part.parts, kColumns, dtype), part),
                     "output");
    expect_same_bits(passed.gradient, joined_shares(part.parts, columns, dtype), "gradient");
  });
}

TEST(ModelParallel, NothingIsRecordedForConstants) {
  on_model_ranks(2, [](Context& context, MeshPart) {
    for (const Border border : {ops::copy_to_model, ops::sum_over_model,
                                ops::slice_columns_over_model, ops::gather_columns_over_model,
                                ops::gather_columns_to_model, ops::sum_and_slice_over_model}) {
      EXPECT_FALSE(border(context, Var(random_tensor({3, 4}, DType::f32, 1))).needs_gradient());
      EXPECT_TRUE(context.tape->empty());
    }
  });
}

TEST(ModelParallel, DropoutOfColumnsHasTheMaskOfTheWhole) {
  const auto drop = [](Context& context, const Tensor& x, MeshPart part) {
    const Var in = Var::leaf(x);
    const Var out = ops::dropout(context, in, 0.4, 7, 3, 2, part);
    out.slot()->adopt(context.stream, x);
    context.tape->backward();
    return std::pair{out.value(), in.slot()->gradient()};
  };
  const Tensor x = random_tensor({kRows, kColumns}, DType::f32, 1);
  std::pair<Tensor, Tensor> whole;
  on_model_ranks(1, [&](Context& context, MeshPart part) { whole = drop(context, x, part); });
  for_all([&](Context& context, MeshPart part, DType) {
    const auto got = drop(context, columns_of(x, part), part);
    expect_same_bits(got.first, columns_of(whole.first, part), "output");
    expect_same_bits(got.second, columns_of(whole.second, part), "gradient");
  });
}

TEST(ModelParallel, ColumnsThatDoNotDivideAreAnError) {
  on_model_ranks(2, [](Context& context, MeshPart) {
    const Var x(random_tensor({3, 5}, DType::f32, 1));
    EXPECT_THROW(ops::slice_columns_over_model(context, x), Error);
    EXPECT_THROW(ops::sum_and_slice_over_model(context, x), Error);
  });
}

}  // namespace
}  // namespace sw::test
