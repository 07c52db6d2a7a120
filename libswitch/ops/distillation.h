// The loss of a student at the end of its decoder.
#pragma once

#include "libswitch/kernels/distillation.h"
#include "libswitch/tape/context.h"

namespace sw::ops {

/// Labels and teacher mixed (kernels/distillation.h). As ops::cross_entropy its gradient is that of
/// the loss with weight 1 and the table's part is formed here. With M model ranks the teacher's
/// table is cut as the student's is.
kernels::DistillationSums distillation(Context& context, const Var& hidden, const Var& table,
                                       const kernels::TeacherLogits& teacher, const Tensor& targets,
                                       kernels::DistillationParams params);

}  // namespace sw::ops
