// Products of a few rows with large matrices, and attention of one query a row to what was cached:
// a step of incremental decoding (Shazeer 2019, "One write-head is all you need", section 2.4.1).
// Such a step is bound by reading the weights once. In panels of columns they are read as one
// stream, at the rate of memory; in rows, whose parts lie apart, it is half of that or less.
#pragma once

#include <span>

#include "libswitch/kernels/kernel.h"
#include "libswitch/kernels/matmul.h"

namespace sw::kernels {

/// Columns of a panel.
inline constexpr int64_t kFewRowsPanel = 32;

/// Panels of a matrix of n columns and k rows: [⌈N/32⌉, K, 32], K of bf16 rounded up to even.
Shape panels_shape(int64_t n, int64_t k, DType dtype);

/// panels = the columns of b [K, N] (or [N, K] transposed), f32 or bf16, in the order in which
/// few_rows_matmul of this processor reads them.
SW_KERNEL(pack_columns, Tensor& panels, const Tensor& b, Transpose transpose_b)

/// One product: c [R, N] f32 = a [R, K] f32 times what `panels` hold.
struct FewRowsProduct {
  Tensor c, a, panels;
};

/// Several products that do not read each other's results, in one parallel pass. Sums are f32; with
/// bf16 weights a is rounded to bf16 where the processor multiplies bf16, else they are widened. An
/// element of c is one chain over k: its bits depend on its row of a and its column of b only,
/// neither on other rows nor on the number of threads.
SW_KERNEL(few_rows_matmul, std::span<const FewRowsProduct> products)

/// log_z [R] f32 = log Σ exp over the columns of logits [R, V] f32.
SW_KERNEL(rows_log_sum_exp, Tensor& log_z, const Tensor& logits)

/// Which cached rows a query sees: entries [begin[r], begin[r+1]) of `rows`.
struct CachedRows {
  std::span<const int64_t> begin;  // [R+1]
  std::span<const int32_t> rows;
};

/// out [R, H·Dh] = softmax(q·kᵀ + bias)·v per head, all f32: query r against the cached rows that
/// are named for it, of keys and values [*, H·Dh]. bias [H, L] f32 or undefined: column j is added
/// for the j-th of them. A query sees at least one row. The bits of a row of out depend on nothing
/// but its own operands.
SW_KERNEL(cached_attention, Tensor& out, const Tensor& q, const Tensor& keys, const Tensor& values,
          const Tensor& bias, const CachedRows& seen, int64_t heads)

}  // namespace sw::kernels
