#include <gtest/gtest.h>

#include "libswitch/ops/activation.h"
#include "libswitch/ops/attention.h"
#include "libswitch/ops/embedding.h"
#include "libswitch/ops/linear.h"
#include "libswitch/ops/norm.h"
#include "tests/support/kernel_case.h"
#include "tests/support/op_case.h"

namespace sw::test {
namespace {

using Vars = std::vector<Var>;

TEST(Ops, Linear) {
  check_op({"linear",
            {{{17, 33}}, {.shape = {33, 7}, .weight = true}},
            [](Context& c, const Vars& in) { return Vars{ops::linear(c, in[0], in[1])}; },
            33});
}

TEST(Ops, AddBias) {
  check_op({"add_bias",
            {{.shape = {70, 5}, .master = true}, {.shape = {5}, .master = true, .weight = true}},
            [](Context& c, const Vars& in) { return Vars{ops::add_bias(c, in[0], in[1])}; },
            70});
}

TEST(Ops, ExpertLinearWithSkewAndAnEmptyExpert) {
  const Tensor offsets = int_tensor({0, 11, 11, 12, 19});
  check_op({"expert_linear",
            {{{19, 13}}, {.shape = {4, 13, 9}, .weight = true}},
            [offsets](Context& c, const Vars& in) {
              return Vars{ops::expert_linear(c, in[0], in[1], offsets)};
            },
            19});
}

TEST(Ops, ResidualNormWithBranchAndPadding) {
  const Tensor mask = Tensor::from({5}, std::vector<uint8_t>{1, 1, 0, 1, 1});
  check_op({"residual_norm",
            {{{5, 17}}, {{5, 17}}, {.shape = {17}, .master = true, .weight = true}},
            [mask](Context& c, const Vars& in) {
              const auto out = ops::residual_norm(c, in[0], in[1], in[2], mask, 1e-6);
              return Vars{out.residual, out.normed};
            },
            17});
}

TEST(Ops, ResidualNormWithoutBranch) {
  check_op({"residual_norm without branch",
            {{{3, 65}}, {.shape = {65}, .master = true, .weight = true}},
            [](Context& c, const Vars& in) {
              return Vars{ops::residual_norm(c, in[0], Var(), in[1], Tensor(), 1e-6).normed};
            },
            65});
}

TEST(Ops, Relu) {
  // Away from the kink, where a difference quotient means something.
  check_op({"relu",
            {{{3, 5}, false, false, 0.1, 1}, {{3, 5}, false, false, -1, -0.1}},
            [](Context& c, const Vars& in) {
              return Vars{ops::relu(c, in[0]), ops::relu(c, in[1])};
            }});
}

TEST(Ops, ActivationsAloneAndAsGates) {
  using kernels::Curve;
  for (const Curve curve : {Curve::gelu, Curve::gelu_tanh, Curve::silu}) {
    check_op({"activation", {{{3, 65}, false, false, -3, 3}}, [curve](Context& c, const Vars& in) {
                return Vars{ops::activation(c, in[0], curve)};
              }});
    check_op(
        {"gate", {{{3, 65}, false, false, -3, 3}, {{3, 65}}}, [curve](Context& c, const Vars& in) {
           return Vars{ops::gated(c, in[0], in[1], curve)};
         }});
  }
}

TEST(Ops, DropoutSharedOverRowsAndNot) {
  for (const int64_t rows_per_mask : {1, 3}) {
    check_op({"dropout", {{{6, 17}}}, [rows_per_mask](Context& c, const Vars& in) {
                return Vars{ops::dropout(c, in[0], 0.3, 7, 6, rows_per_mask)};
              }});
  }
}

TEST(Ops, DropoutIsTheIdentityOutsideTraining) {
  Context context;
  const Var x = Var::leaf(random_tensor({3, 4}, DType::f32, 1));
  EXPECT_EQ(ops::dropout(context, x, 0.5, 1, 0, 1).value().raw(), x.value().raw());
}

TEST(Ops, MaskRows) {
  const Tensor mask = Tensor::from({4}, std::vector<uint8_t>{1, 0, 1, 0});
  check_op({"mask_rows", {{{4, 9}}}, [mask](Context& c, const Vars& in) {
              return Vars{ops::mask_rows(c, in[0], mask)};
            }});
}

kernels::AttentionParams attention_params(int64_t queries, int64_t keys, bool causal, double rate) {
  kernels::AttentionParams params;
  params.batch = 2, params.heads = 2, params.head_dim = 5;
  params.query_length = queries, params.key_length = keys, params.causal = causal;
  params.dropout = rate;
  params.dropout_key = rng_key(1, RngPurpose::test);
  return params;
}

TEST(Ops, SelfAttentionWithBiasCausalPackedAndDropout) {
  const Tensor segments =
      Tensor::from({2, 7}, std::vector<int32_t>{1, 1, 1, 2, 2, 2, 0, 1, 1, 1, 1, 1, 1, 1});
  for (const bool causal : {false, true}) {
    check_op({"self-attention",
              {{{14, 10}}, {{14, 10}}, {{14, 10}}, {.shape = {2, 13}, .master = true}},
              [=](Context& c, const Vars& in) {
                return Vars{ops::attention(c, in[0], in[1], in[2], in[3], segments, segments,
                                           attention_params(7, 7, causal, 0.2))};
              },
              14,
              1,
              16});
  }
}

TEST(Ops, CrossAttentionWithAQueryThatSeesNothing) {
  const Tensor queries = Tensor::from({2, 3}, std::vector<int32_t>{1, 1, 9, 1, 1, 1});
  const Tensor keys = Tensor::from({2, 5}, std::vector<int32_t>{1, 1, 1, 0, 0, 1, 1, 1, 1, 1});
  check_op({"cross-attention",
            {{{6, 10}}, {{10, 10}}, {{10, 10}}},
            [=](Context& c, const Vars& in) {
              return Vars{ops::attention(c, in[0], in[1], in[2], Var(), queries, keys,
                                         attention_params(3, 5, false, 0))};
            },
            10,
            1,
            16});
}

TEST(Ops, RelativeBias) {
  const Tensor buckets = int_tensor({3, 1, 0, 2, 2, 3});
  check_op({"relative_bias",
            {{.shape = {2, 4}, .master = true, .weight = true}},
            [buckets](Context& c, const Vars& in) {
              return Vars{ops::relative_bias(c, in[0], buckets)};
            }});
}

TEST(Ops, EmbeddingWithRepeatedIds) {
  const Tensor ids = int_tensor({4, 0, 4, 4, 2, 6});
  check_op({"embedding",
            {{.shape = {7, 9}, .weight = true}},
            [ids](Context& c, const Vars& in) { return Vars{ops::embedding(c, in[0], ids)}; },
            3});
}

TEST(Ops, CrossEntropyIsTheRootOfItsGradient) {
  const Tensor targets = int_tensor({3, -1, 0, 10, 3});
  Tensor hidden = random_tensor({5, 6}, DType::f64, 1),
         table = random_tensor({11, 6}, DType::f64, 2);
  kernels::CrossEntropyParams params;
  params.logit_scale = 0.4, params.weight = 0.2, params.z_loss = 1e-2, params.label_smoothing = 0.1;
  Tape tape;
  Context context = {};
  context.compute = DType::f64;
  context.tape = &tape;
  const Var h = Var::leaf(hidden), t = Var::leaf(table);
  ops::cross_entropy(context, h, t, targets, params);
  tape.backward();
  const auto loss = [&] {
    Context plain = {};
    plain.compute = DType::f64;
    return ops::cross_entropy(plain, Var(hidden), Var(table), targets, params).loss;
  };
  expect_gradient(h.slot()->gradient(), hidden, loss, "hidden");
  expect_gradient(t.slot()->gradient(), table, loss, "table");
}

}  // namespace
}  // namespace sw::test
