// Activations, dropout, row masks, casts.
#pragma once

#include "libswitch/kernels/activation.h"
#include "libswitch/tape/context.h"

namespace sw::ops {

/// max(x, 0), in place: x's value must have no other reader.
Var relu(Context& context, const Var& x);
/// curve(x).
Var activation(Context& context, const Var& x, kernels::Curve curve);
/// curve(a)·b.
Var gated(Context& context, const Var& a, const Var& b, kernels::Curve curve);

/// Dropout for x [N, D] in training, else x itself. `rows_per_mask` consecutive rows share one
/// mask; `first_row` is the global index of row 0. `site` identifies the place in the model. Where
/// columns are cut over ranks, `columns` says which part of them x is.
Var dropout(Context& context, const Var& x, double rate, uint64_t site, int64_t first_row,
            int64_t rows_per_mask, MeshPart columns = {});

/// Rows whose mask is 0 become zero; x itself when the mask is undefined.
Var mask_rows(Context& context, const Var& x, const Tensor& row_mask);

}  // namespace sw::ops
