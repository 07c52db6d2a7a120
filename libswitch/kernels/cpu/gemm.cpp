#include "libswitch/kernels/cpu/gemm.h"

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "libswitch/kernels/cpu/matmul_pack.h"
#include "libswitch/kernels/cpu/one_thread.h"
#include "libswitch/kernels/cpu/scratch.h"

namespace sw::kernels::cpu {
namespace {

// True when nothing is left to compute.
template <class T>
bool trivial(int64_t m, int64_t n, int64_t k, T* c, int64_t ldc, Accum accum) {
  if (m > 0 && n > 0 && k > 0) return false;
  if (k <= 0 && accum == Accum::write) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, std::max<int64_t>(n, 0), T(0));
  }
  return true;
}

// The stored rows x columns of an operand as dense f32.
const float* widened(const bf16* x, int64_t rows, int64_t columns, int64_t stride,
                     Scratch& scratch) {
  float* y = scratch.get<float>(rows * columns);
  pack(x, stride, rows, columns, y, columns);
  return y;
}

}  // namespace

void gemm_tile(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, Transpose transpose_a,
               const float* b, int64_t ldb, Transpose transpose_b, float* c, int64_t ldc,
               Accum accum) {
  if (trivial(m, n, k, c, ldc, accum)) return;
  const OneThread one_thread;
  const auto status = dnnl_sgemm(transpose_a == Transpose::yes ? 'T' : 'N',
                                 transpose_b == Transpose::yes ? 'T' : 'N', m, n, k, 1.0f, a, lda,
                                 b, ldb, accum == Accum::add ? 1.0f : 0.0f, c, ldc);
  SW_CHECK(status == dnnl_success, internal,
           "gemm_tile: oneDNN refused m {}, n {}, k {}, lda {}, ldb {}, ldc {} with status {}", m,
           n, k, lda, ldb, ldc, static_cast<int>(status));
}

void gemm_tile(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, Transpose transpose_a,
               const double* b, int64_t ldb, Transpose transpose_b, double* c, int64_t ldc,
               Accum accum) {
  if (trivial(m, n, k, c, ldc, accum)) return;
  // Rows of c stay in the first-level cache while rows of op(b) stream by.
  constexpr int64_t kColumns = 256;
  static thread_local Scratch scratch;
  double* row = scratch.get<double>(kColumns);
  for (int64_t j0 = 0; j0 < n; j0 += kColumns) {
    const int64_t width = std::min(kColumns, n - j0);
    for (int64_t i = 0; i < m; ++i) {
      std::fill_n(row, width, 0.0);
      for (int64_t p = 0; p < k; ++p) {
        const double x = transpose_a == Transpose::yes ? a[p * lda + i] : a[i * lda + p];
        if (transpose_b == Transpose::yes) {
          for (int64_t j = 0; j < width; ++j) row[j] += x * b[(j0 + j) * ldb + p];
        } else {
          for (int64_t j = 0; j < width; ++j) row[j] += x * b[p * ldb + j0 + j];
        }
      }
      double* out = c + i * ldc + j0;
      if (accum == Accum::add) {
        for (int64_t j = 0; j < width; ++j) out[j] += row[j];
      } else {
        std::copy_n(row, width, out);
      }
    }
  }
}

void gemm_tile(int64_t m, int64_t n, int64_t k, const bf16* a, int64_t lda, Transpose transpose_a,
               const bf16* b, int64_t ldb, Transpose transpose_b, float* c, int64_t ldc,
               Accum accum) {
  if (trivial(m, n, k, c, ldc, accum)) return;
  static thread_local Scratch scratch_a, scratch_b;
  const int64_t rows_a = transpose_a == Transpose::yes ? k : m;
  const int64_t columns_a = transpose_a == Transpose::yes ? m : k;
  const int64_t rows_b = transpose_b == Transpose::yes ? n : k;
  const int64_t columns_b = transpose_b == Transpose::yes ? k : n;
  gemm_tile(m, n, k, widened(a, rows_a, columns_a, lda, scratch_a), columns_a, transpose_a,
            widened(b, rows_b, columns_b, ldb, scratch_b), columns_b, transpose_b, c, ldc, accum);
}

void gemm_tile(int64_t m, int64_t n, int64_t k, const bf16* a, int64_t lda, Transpose transpose_a,
               const bf16* b, int64_t ldb, Transpose transpose_b, bf16* c, int64_t ldc,
               Accum accum) {
  if (trivial(m, n, k, c, ldc, accum)) return;
  static thread_local Scratch scratch_c;
  float* sum = scratch_c.get<float>(m * n);
  gemm_tile(m, n, k, a, lda, transpose_a, b, ldb, transpose_b, sum, n, Accum::write);
  with_accum(accum, [&](auto add) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) put(add, c + i * ldc, j, sum[i * n + j]);
    }
  });
}

}  // namespace sw::kernels::cpu
