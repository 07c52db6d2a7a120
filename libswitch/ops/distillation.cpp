#include "libswitch/ops/distillation.h"

#include "libswitch/base/profile.h"
#include "libswitch/ops/embedding.h"
#include "libswitch/ops/model_parallel.h"

namespace sw::ops {

kernels::DistillationSums distillation(Context& context, const Var& whole_hidden, const Var& table,
                                       const kernels::TeacherLogits& teacher, const Tensor& targets,
                                       kernels::DistillationParams params) {
  const Var hidden = copy_to_model(context, whole_hidden);
  Group& group = context.mesh->model();
  params.hard.part = vocabulary_part(context, table);
  if (group.size() > 1) {
    params.hard.gather_statistics = [&](const Tensor& mine) { return gathered_rows(group, mine); };
  }
  const bool records = context.tape != nullptr && hidden.needs_gradient();
  const double products = records ? 3 : 1;
  double flops = products * static_cast<double>(hidden.value().elements());
  if (teacher.hidden) flops += static_cast<double>(teacher.hidden.elements());
  const ProfileRegion region(
      "distillation loss", 2 * flops * static_cast<double>(table.value().size(0)),
      products * static_cast<double>(hidden.value().bytes() + table.value().bytes()));
  Tensor d_hidden, d_table;
  Accum accum = Accum::write;
  if (records) {
    d_hidden = Tensor::empty(hidden.shape(), hidden.value().dtype(), context.device());
    if (table.needs_gradient()) {
      auto target = table.slot()->target();
      d_table = target.tensor;
      accum = target.accum;
    }
  }
  kernels::DistillationSums sums;
  kernels::distillation(context.stream, &sums, d_hidden, d_table, accum, hidden.value(),
                        table.value(), teacher, targets, params);
  if (records) {
    context.tape->record([stream = context.stream, slot = hidden.slot(), d_hidden] {
      slot->adopt(stream, d_hidden);
    });
  }
  return sums;
}

}  // namespace sw::ops
