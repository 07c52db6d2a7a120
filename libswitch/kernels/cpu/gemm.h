// The product of two small matrices in the calling thread: what matmul cuts its work into and what
// attention and the loss compute their blocks with.
#pragma once

#include "libswitch/kernels/matmul.h"

namespace sw::kernels::cpu {

/// c = op(a)·op(b), or c += op(a)·op(b). Row-major with strides: op(a) is m x k and its element
/// (i, p) is a[i·lda + p], or a[p·lda + i] when transposed; likewise op(b), k x n; c is m x n. Runs
/// in the calling thread whatever the number of threads, so equal arguments give equal bits.
/// Products of bf16 are summed in f32 and rounded once when c is bf16. k = 0 gives zeros (or
/// leaves c).
void gemm_tile(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, Transpose transpose_a,
               const float* b, int64_t ldb, Transpose transpose_b, float* c, int64_t ldc,
               Accum accum);
void gemm_tile(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, Transpose transpose_a,
               const double* b, int64_t ldb, Transpose transpose_b, double* c, int64_t ldc,
               Accum accum);
void gemm_tile(int64_t m, int64_t n, int64_t k, const bf16* a, int64_t lda, Transpose transpose_a,
               const bf16* b, int64_t ldb, Transpose transpose_b, float* c, int64_t ldc,
               Accum accum);
void gemm_tile(int64_t m, int64_t n, int64_t k, const bf16* a, int64_t lda, Transpose transpose_a,
               const bf16* b, int64_t ldb, Transpose transpose_b, bf16* c, int64_t ldc,
               Accum accum);

}  // namespace sw::kernels::cpu
