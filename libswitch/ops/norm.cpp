#include "libswitch/ops/norm.h"

#include "libswitch/base/profile.h"
#include "libswitch/kernels/norm.h"

namespace sw::ops {

ResidualNorm residual_norm(Context& context, const Var& residual, const Var& branch,
                           const Var& scale, const Tensor& row_mask, double epsilon) {
  const int64_t rows = residual.value().size(0), width = residual.value().size(1);
  const DType dtype = residual.value().dtype();
  check_tensor("residual_norm", "scale", scale.value(), {width}, master_dtype(dtype));
  const auto tensor_bytes = static_cast<double>(residual.value().bytes());
  const ProfileRegion region("norm forward", 0, (branch.defined() ? 4 : 2) * tensor_bytes);
  Tensor normed = Tensor::empty({rows, width}, dtype, context.device());
  Tensor inv_rms = Tensor::empty({rows}, master_dtype(dtype), context.device());
  Tensor sum;
  if (branch.defined()) {
    check_tensor("residual_norm", "branch", branch.value(), residual.shape(), dtype);
    sum = Tensor::empty({rows, width}, dtype, context.device());
  }
  kernels::residual_norm_forward(context.stream, sum, normed, inv_rms, residual.value(),
                                 branch.value(), scale.value(), row_mask, epsilon);
  ResidualNorm out;
  out.residual = branch.defined() ? context.output(std::move(sum), {&residual, &branch}) : residual;
  out.normed = context.output(std::move(normed), {&residual, &branch, &scale});
  if (context.records(out.normed)) {
    // The gradient of the sum is that of residual and of branch alike. When the sum's own slot
    // already holds what later layers contributed, the norm's part is added in the same pass.
    context.tape->record([stream = context.stream, residual = residual.slot(),
                          branch = branch.slot(), has_branch = branch.defined(),
                          scale_value = scale.value(), scale_slot = scale.slot(), row_mask, inv_rms,
                          sum = out.residual, d_normed = out.normed.slot(), tensor_bytes] {
      const ProfileRegion region("norm backward", 0, (has_branch ? 4 : 3) * tensor_bytes);
      const bool later = has_branch && sum.slot() && sum.slot()->is_set();
      if (!d_normed->is_set() && !later) return;
      const Tensor d_later = later ? sum.slot()->gradient() : Tensor();
      if (!d_normed->is_set()) {
        if (residual) residual->adopt(stream, d_later);
        if (branch) branch->adopt(stream, d_later);
        return;
      }
      GradientSlot::Target d_scale{{}, Accum::write};
      if (scale_slot) {
        d_scale = scale_slot->target();
      } else {
        d_scale.tensor = Tensor::empty(scale_value.shape(), scale_value.dtype());
      }
      // Residual and branch have one gradient: when both are fresh, one tensor serves them.
      const bool one_tensor = residual && branch && !residual->is_set() && !branch->is_set();
      GradientSlot::Target d_residual{{}, Accum::write}, d_branch{{}, Accum::write};
      if (residual) {
        d_residual = residual->target();
      } else {
        d_residual.tensor = Tensor::empty(sum.shape(), sum.value().dtype(), sum.value().device());
      }
      if (branch && !one_tensor) d_branch = branch->target();
      kernels::residual_norm_backward(stream, d_residual.tensor, d_residual.accum, d_branch.tensor,
                                      d_branch.accum, d_scale.tensor, d_scale.accum, sum.value(),
                                      inv_rms, scale_value, row_mask, d_normed->gradient(),
                                      d_later);
      if (one_tensor) branch->adopt(stream, d_residual.tensor);
    });
  }
  return out;
}

}  // namespace sw::ops
