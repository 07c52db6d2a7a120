#include "libswitch/train/distillation.h"

#include "libswitch/base/profile.h"
#include "libswitch/ops/distillation.h"

namespace sw {

ModelConfig frozen(ModelConfig config) {
  config.dropout = config.expert_dropout = config.input_dropout = config.jitter = 0;
  config.selection = "argmax";  // exploration is for who learns
  return config;
}

kernels::TeacherLogits ask_teacher(const Context& context, const Model& teacher,
                                   const ModelInput& input) {
  const ProfileScope scope("teacher");
  Context frozen;
  frozen.training = context.training;
  frozen.seed = context.seed;
  frozen.step = context.step;
  frozen.fault = context.fault;
  kernels::TeacherLogits said;
  said.hidden = teacher.decode(frozen, input).value();
  said.table = teacher.output_table().constant().value();
  said.logit_scale = teacher.logit_scale();
  return said;
}

ForwardResult distillation_forward(Context& context, const Model& student, const ModelInput& input,
                                   const ForwardOptions& options,
                                   const kernels::TeacherLogits& said,
                                   const DistillationConfig& config) {
  ForwardOptions mixed = options;
  mixed.router_loss_scale = 1 - config.soft_weight;
  kernels::DistillationSums sums;
  mixed.loss_head = [&](Context& inner, const Var& hidden, const Var& table, const Tensor& targets,
                        const kernels::CrossEntropyParams& hard) {
    kernels::DistillationParams params;
    params.hard = hard;
    params.soft_weight = config.soft_weight;
    params.temperature = config.temperature;
    sums = ops::distillation(inner, hidden, table, said, targets, params);
    return sums.student;
  };
  ForwardResult result = student.forward(context, input, mixed);
  result.soft_cross_entropy = sums.soft_cross_entropy / input.loss_denominator;
  result.teacher_cross_entropy = -sums.teacher_log_likelihood / input.loss_denominator;
  return result;
}

DistillationObjective::DistillationObjective(std::unique_ptr<Objective> data,
                                             std::unique_ptr<Model> teacher,
                                             std::unique_ptr<TeacherLogitsFile> file,
                                             const DistillationConfig& config)
    : data_(std::move(data)),
      teacher_(std::move(teacher)),
      file_(std::move(file)),
      config_(config) {}

ForwardResult DistillationObjective::forward(Context& context, const Model& model,
                                             const ModelInput& input,
                                             const ForwardOptions& options) const {
  const int64_t first_row = context.step * rows() + input.first_row;
  kernels::TeacherLogits said;
  if (teacher_ == nullptr) {
    said = file_->read(first_row, input.targets);
  } else {
    said = ask_teacher(context, *teacher_, input);
    if (file_ != nullptr) {
      file_->write(first_row, input.targets,
                   largest_logits(context.stream, said, input.targets, file_->shape().largest));
    }
  }
  return distillation_forward(context, model, input, options, said, config_);
}

}  // namespace sw
