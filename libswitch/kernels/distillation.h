// The output projection and the loss of a student in one, over chunks of rows: the mean of the
// cross-entropy with the labels and of that with a teacher's distribution (Hinton et al. 2015;
// Fedus et al. 2022, section 4.2). Neither model's logits of a batch ever exist together.
#pragma once

#include "libswitch/kernels/cross_entropy.h"

namespace sw::kernels {

/// What the teacher says of each row: either what its logits are made of, or the largest of them.
struct TeacherLogits {
  Tensor hidden;           // [N, Dt], in the precision of its table
  Tensor table;            // [V, Dt], or the part of it that goes with the student's part
  double logit_scale = 1;  // logits = logit_scale · hidden · tableᵀ
  Tensor ids;              // [N, K] i32, -1: fewer than K; where hidden is undefined
  Tensor logits;           // [N, K] f32; what is not among them has no probability
};

struct DistillationParams {
  CrossEntropyParams hard;  // of the labels; weight and z-loss hold for both terms
  double soft_weight = 0.25;
  double temperature = 1;
};

/// Rows of gather_statistics, by part of the vocabulary.
inline constexpr int64_t kDistillationStatistics = 10;

struct DistillationSums {
  /// loss: weight · Σ ((1 - soft_weight) · hard + soft_weight · temperature² · soft), where soft is
  /// the cross-entropy between softmax(teacher / temperature) and student / temperature, with its
  /// z-loss. The other sums are those of the student with the labels.
  CrossEntropySums student;
  double soft_cross_entropy = 0;  // Σ over targets, nats, without z-loss
  double teacher_log_likelihood =
      0;  // Σ log p(target) of the teacher's distribution at temperature
};

/// Loss over the rows with target >= 0 and, when d_hidden is defined, its gradients; shapes as in
/// cross_entropy(). The teacher gets none.
SW_KERNEL(distillation, DistillationSums* sums, Tensor& d_hidden, Tensor& d_table,
          Accum accum_table, const Tensor& hidden, const Tensor& table,
          const TeacherLogits& teacher, const Tensor& targets, const DistillationParams& params)

}  // namespace sw::kernels
