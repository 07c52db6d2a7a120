// Distillation: a student learns from labels and from what a frozen teacher says of them (Fedus et
// al. 2022, section 4.2; Mesh TensorFlow's StudentTeacher).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libswitch/train/objective.h"
#include "libswitch/train/teacher_logits.h"

namespace sw {

struct DistillationConfig {
  double soft_weight = 0.25;  // of the teacher's distribution; the rest is the labels'
  double temperature = 1;
};

/// A model as a teacher: without dropout, jitter and drawn experts, but with its training capacity.
ModelConfig frozen(ModelConfig config);

/// What the teacher, which lies on the student's mesh and computes in its precision, says of a
/// shard; it runs without tape.
kernels::TeacherLogits ask_teacher(const Context& context, const Model& teacher,
                                   const ModelInput& input);

/// The losses of one shard: labels and router losses with 1 - soft_weight, the teacher with
/// soft_weight · temperature². `sums` and the routing statistics are the student's.
ForwardResult distillation_forward(Context& context, const Model& student, const ModelInput& input,
                                   const ForwardOptions& options,
                                   const kernels::TeacherLogits& said,
                                   const DistillationConfig& config);

/// Distils on another objective's batches. Evaluation is that objective's, of the student alone.
class DistillationObjective final : public Objective {
 public:
  /// With a file and a teacher the teacher's largest logits are written to it; with a file alone
  /// they are read from it, at steps whose number is that of their data.
  DistillationObjective(std::unique_ptr<Objective> data, std::unique_ptr<Model> teacher,
                        std::unique_ptr<TeacherLogitsFile> file, const DistillationConfig& config);

  int64_t rows() const override { return data_->rows(); }
  void fill(int64_t step, MeshPart part, Batch& batch) const override {
    data_->fill(step, part, batch);
  }
  DataPosition position(int64_t step) const override { return data_->position(step); }
  ForwardResult forward(Context& context, const Model& model, const ModelInput& input,
                        const ForwardOptions& options) const override;
  std::vector<Evaluation> evaluate(const Model& model, const Poll& poll) const override {
    return data_->evaluate(model, poll);
  }
  /// Null where its logits are read.
  const Model* teacher() const { return teacher_.get(); }

 private:
  std::unique_ptr<Objective> data_;
  std::unique_ptr<Model> teacher_;
  std::unique_ptr<TeacherLogitsFile> file_;
  DistillationConfig config_;
};

}  // namespace sw
