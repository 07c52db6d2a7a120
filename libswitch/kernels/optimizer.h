// Optimizer steps: one pass over gradient and weights where the rule allows it.
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
///
/// weight_squares [batch] f64 (undefined: not kept; only where factored) receives Σw² of the
/// updated weight, which the next step need not sum again when it gets them back with
/// squares_known; the bits are the same.
SW_KERNEL(adafactor_step, Tensor& weight, Tensor& value, Tensor& row_moment, Tensor& column_moment,
          Tensor& moment, Tensor& weight_squares, bool squares_known, const Tensor& gradient,
          int64_t batch, int64_t rows, int64_t columns, bool one_rms, const AdafactorParams& params,
          double* update_rms)

// The stages of an Adafactor step, for ranks that hold parts of a parameter: between them, sums are
// added up over ranks. Run one after the other on a whole parameter they are adafactor_step, bit
// for bit. Sums are f64.

/// What is held of a parameter: `batch` matrices of rows x columns, cut out of matrices of
/// whole_rows x whole_columns.
struct AdafactorPart {
  int64_t batch = 1, rows = 1, columns = 1;
  int64_t whole_rows = 1, whole_columns = 1;
};

/// row_sums [batch, rows] and column_sums [batch, columns]: Σ g² over the columns and rows held.
SW_KERNEL(adafactor_sums, Tensor& row_sums, Tensor& column_sums, const Tensor& gradient,
          const AdafactorPart& part)
/// New moments from the sums over whole rows and columns; row_totals [batch] are the sums of
/// row_moment over the rows held, column_factor [batch, columns] master is 1 / sqrt(column_moment).
SW_KERNEL(adafactor_moments, Tensor& row_moment, Tensor& column_moment, Tensor& row_totals,
          Tensor& column_factor, const Tensor& row_sums, const Tensor& column_sums,
          const AdafactorPart& part, const AdafactorParams& params)
/// squares [batch, 2]: Σu² and Σw² over the elements held, with row_totals over whole columns; Σw²
/// is weight_squares [batch] f64 where defined, and 0 without multiply_by_rms. row_factor [batch,
/// rows] master is gradient_scale / sqrt(row_moment / its mean).
SW_KERNEL(adafactor_squares, Tensor& squares, Tensor& row_factor, const Tensor& weight,
          const Tensor& gradient, const Tensor& row_moment, const Tensor& row_totals,
          const Tensor& column_factor, const Tensor& weight_squares, const AdafactorPart& part,
          const AdafactorParams& params)
/// The update by u = g · row_factor · column_factor times step_sizes [batch]; weight_squares
/// [batch] f64 (may be undefined) receives Σw² of the updated weight.
SW_KERNEL(adafactor_update, Tensor& weight, Tensor& value, Tensor& weight_squares,
          const Tensor& gradient, const Tensor& row_factor, const Tensor& column_factor,
          const Tensor& step_sizes, const AdafactorPart& part)

/// The same without factors, on [batch, count]: new moment, and squares.
SW_KERNEL(adafactor_unfactored_squares, Tensor& squares, Tensor& moment, const Tensor& weight,
          const Tensor& gradient, int64_t batch, int64_t count, const AdafactorParams& params)
SW_KERNEL(adafactor_unfactored_update, Tensor& weight, Tensor& value, const Tensor& gradient,
          const Tensor& moment, const Tensor& step_sizes, int64_t batch, int64_t count,
          const AdafactorParams& params)

/// step_sizes [batch]: what u is multiplied by: learning rate, relative step and clipping. squares
/// [n, 2] are of matrices of `count` elements; of one_rms, those of all ranks in order: their sum
/// decides for all. Otherwise n is batch.
SW_KERNEL(adafactor_step_sizes, Tensor& step_sizes, const Tensor& squares, int64_t count,
          bool one_rms, const AdafactorParams& params)

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
