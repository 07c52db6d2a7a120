// What Adafactor does to rows of a matrix, in AVX-512 vectors where the processor has them. A: type
// of gradients and weights, float or double. Sums are taken over lanes that do not depend on the
// width of a vector, so that every processor gets the same bits.
#pragma once

#include <cstdint>

#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {

/// Σ g² of `rows` dense rows: of each row to row_sums [rows], of each column added to column_sums
/// [columns].
template <class A>
void sum_rows(const A* g, int64_t rows, int64_t columns, double* row_sums, A* column_sums);

/// Σ (g·factor)² and Σ w² (w may be null: 0) over n elements.
template <class A>
struct RowSquares {
  A update = 0, weight = 0;
};
template <class A>
RowSquares<A> row_squares(const A* g, const A* factor, const A* w, int64_t n);

/// w -= step · (g·factor), and its copy to `value` (float, bf16, double or NoValue); Σ w² of the
/// updated w, with the bits that row_squares gives for it. `past_caches`: the copy is too large to
/// stay there; streamed_rows_done() comes after the last such row of a thread's work.
template <class A, class V>
A update_row(A* w, V* value, const A* g, const A* factor, A step, int64_t n, bool past_caches);
/// Orders streamed copies before whatever tells other threads of them.
void streamed_rows_done();

}  // namespace sw::kernels::cpu
