// The student's loss with the vocabulary cut over the model axis, against one rank.
#include "libswitch/ops/distillation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/kernel_case.h"
#include "tests/support/model_ranks.h"

namespace sw::test {
namespace {

struct Outputs {
  kernels::DistillationSums sums;
  Tensor d_hidden, d_table;
};

TEST(DistillationOp, ModelRanksAgreeWithOne) {
  constexpr int64_t kRows = 33, kWidth = 9, kVocabulary = 132;
  for (const double temperature : {1.0, 2.0}) {
    const Tensor hidden = random_tensor({kRows, kWidth}, DType::f32, 1);
    const Tensor table = random_tensor({kVocabulary, kWidth}, DType::f32, 2);
    const Tensor teacher_hidden = random_tensor({kRows, 5}, DType::f32, 3);
    const Tensor teacher_table = random_tensor({kVocabulary, 5}, DType::f32, 4);
    Tensor targets = random_ints({kRows}, 5, 0, 99);
    targets.data<int32_t>()[7] = -1;
    // The last quarter of the tables is padding: a rank without any class.
    const kernels::DistillationParams params{{0.4, 0.1, 1e-2, 0.1, 99}, 0.3, temperature};
    const auto run = [&](Context& context, MeshPart part) {
      const Tensor mine = rows_of(table, part);
      const Var leaf = Var::leaf(hidden);
      const Var rows(mine, std::make_shared<GradientSlot>(mine.shape(), DType::f32, Device{}));
      kernels::TeacherLogits teacher;
      teacher.hidden = teacher_hidden;
      teacher.table = rows_of(teacher_table, part);
      Outputs out;
      out.sums = ops::distillation(context, leaf, rows, teacher, targets, params);
      context.tape->backward();
      out.d_hidden = leaf.slot()->gradient();
      out.d_table = rows.slot()->gradient();
      return out;
    };
    Outputs want;
    on_model_ranks(1, [&](Context& context, MeshPart part) { want = run(context, part); });
    for (const int64_t ranks : {2, 4}) {
      on_model_ranks(ranks, [&](Context& context, MeshPart part) {
        const Outputs got = run(context, part);
        EXPECT_NEAR(got.sums.student.loss, want.sums.student.loss, 1e-5);
        EXPECT_NEAR(got.sums.soft_cross_entropy, want.sums.soft_cross_entropy, 1e-4);
        EXPECT_NEAR(got.sums.teacher_log_likelihood, want.sums.teacher_log_likelihood, 1e-4);
        EXPECT_EQ(got.sums.student.correct, want.sums.student.correct);
        expect_close(got.d_hidden, want.d_hidden.to_vector(), {1e-4, 1e-6}, "d_hidden");
        expect_close(got.d_table, rows_of(want.d_table, part).to_vector(), {1e-4, 1e-6}, "d_table");
      });
    }
  }
}

}  // namespace
}  // namespace sw::test
