// Fused optimizer steps: one pass over gradient and weights where the rule allows it.
#pragma once

#include <vector>

#include "libswitch/kernels/kernel.h"

namespace sw::kernels {

struct AdafactorParams {
  double learning_rate = 0.01;
  double beta2 = 0;           // 1 - t^-0.8 with t = step + 1 (Shazeer & Stern 2018, section 6)
  double epsilon1 = 1e-30;    // added to g²
  double epsilon2 = 1e-3;     // floor of the weight's rms in the relative step
  double clip_threshold = 1;  // rms of the update is clipped to this
  double gradient_scale = 1;  // the gradient is multiplied by this first (clipping by global norm)
  bool multiply_by_rms = true;  // step = learning_rate · max(rms(w), epsilon2)
};

/// One Adafactor step without momentum on `weight` viewed as [batch, rows, columns], all master:
/// factored: row_moment [batch, rows] and column_moment [batch, columns] are the running means of
/// g² + epsilon1 over columns and rows, u = g / sqrt(r/mean(r) · c). Otherwise (row_moment
/// undefined) moment has the weight's shape. rms of weight and update are taken over everything
/// when one_rms, else per batch entry (per expert). value (undefined: none) receives the updated
/// weight cast to its dtype (the bf16 copy used in the model). Sums in a fixed order. *update_rms
/// (may be null) receives the rms of the unclipped update over everything.
SW_KERNEL(adafactor_step, Tensor& weight, Tensor& value, Tensor& row_moment, Tensor& column_moment,
          Tensor& moment, const Tensor& gradient, int64_t batch, int64_t rows, int64_t columns,
          bool one_rms, const AdafactorParams& params, double* update_rms)

struct AdamWParams {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;  // decoupled: w -= learning_rate · weight_decay · w
  int64_t step = 1;         // counts from 1; bias correction
  double gradient_scale = 1;
};
/// One AdamW step (Loshchilov & Hutter 2019); first, second moments like weight; value as above.
SW_KERNEL(adamw_step, Tensor& weight, Tensor& value, Tensor& first_moment, Tensor& second_moment,
          const Tensor& gradient, const AdamWParams& params)

}  // namespace sw::kernels
