#include "libswitch/train/distillation.h"

#include "libswitch/base/profile.h"
#include "libswitch/ops/distillation.h"

namespace sw {

ModelConfig frozen(ModelConfig config) {
  config.dropout = config.expert_dropout = config.input_dropout = config.jitter = 0;
  return config;
}

ForwardResult distillation_forward(Context& context, const Model& student, const ModelInput& input,
                                   const ForwardOptions& options, const Model& teacher,
                                   const DistillationConfig& config) {
  kernels::TeacherLogits said;
  {
    const ProfileScope scope("teacher");
    Context frozen;
    frozen.training = context.training;
    frozen.seed = context.seed;
    frozen.step = context.step;
    frozen.fault = context.fault;
    said.hidden = teacher.decode(frozen, input).value();
  }
  said.table = teacher.output_table().constant().value();
  said.logit_scale = teacher.logit_scale();

  ForwardOptions mixed = options;
  mixed.router_loss_scale = 1 - config.soft_weight;
  mixed.loss_head = [&](Context& inner, const Var& hidden, const Var& table, const Tensor& targets,
                        const kernels::CrossEntropyParams& hard) {
    kernels::DistillationParams params;
    params.hard = hard;
    params.soft_weight = config.soft_weight;
    params.temperature = config.temperature;
    return ops::distillation(inner, hidden, table, said, targets, params).student;
  };
  return student.forward(context, input, mixed);
}

DistillationObjective::DistillationObjective(std::unique_ptr<Objective> data,
                                             std::unique_ptr<Model> teacher,
                                             const DistillationConfig& config)
    : data_(std::move(data)), teacher_(std::move(teacher)), config_(config) {}

ForwardResult DistillationObjective::forward(Context& context, const Model& model,
                                             const ModelInput& input,
                                             const ForwardOptions& options) const {
  return distillation_forward(context, model, input, options, *teacher_, config_);
}

}  // namespace sw
