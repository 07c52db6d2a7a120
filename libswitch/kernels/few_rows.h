// Products of a few rows with large matrices, and attention of one query a row to what was cached:
// a step of incremental decoding (Shazeer 2019, "One write-head is all you need", section 2.4.1).
// Such a step is bound by reading the weights once, so a weight is read where it lies, in the
// layout it has for training, and widened on the way when it is bf16.
#pragma once

#include <span>

#include "libswitch/kernels/kernel.h"
#include "libswitch/kernels/matmul.h"

namespace sw::kernels {

/// c [R, N] f32 = a [R, K] f32 times b [K, N] (or [N, K] transposed), f32 or bf16.
struct FewRowsProduct {
  Tensor c, a, b;
  Transpose transpose_b = Transpose::no;
};

/// Several products that do not read each other's results, in one parallel pass. Sums are f32. The
/// bits of a row of c depend on its row of a and on b only: neither on other rows nor on the number
/// of threads.
SW_KERNEL(few_rows_matmul, std::span<const FewRowsProduct> products)

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
