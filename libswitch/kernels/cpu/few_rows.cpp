#include "libswitch/kernels/few_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {
namespace {

// Eight floats in a register; memory need not be aligned.
typedef float Vector __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(32)));
typedef uint16_t Halves __attribute__((vector_size(16)));
constexpr int64_t kLanes = 8;

inline Vector load8(const float* x) {
  Vector y;
  std::memcpy(&y, x, sizeof y);
  return y;
}
inline Vector load8(const bf16* x) {
  Halves y;
  std::memcpy(&y, x, sizeof y);
  return (Vector)(__builtin_convertvector(y, Words) << 16);
}
inline void store8(float* y, Vector x) { std::memcpy(y, &x, sizeof x); }

// y += w · x as one rounding, like std::fma of every lane.
inline Vector multiply_add(Vector w, float x, Vector y) {
  Vector out;
  for (int i = 0; i < kLanes; ++i) out[i] = __builtin_fmaf(w[i], x, y[i]);
  return out;
}
inline Vector multiply_add(Vector w, Vector x, Vector y) {
  Vector out;
  for (int i = 0; i < kLanes; ++i) out[i] = __builtin_fmaf(w[i], x[i], y[i]);
  return out;
}

// Adds kDepth rows of b to columns [0, columns) of kRows rows of c. An element of c is one chain
// over k, whatever the blocks.
template <int kRows, int kDepth, class W>
inline void add_depth(const float* a, int64_t k_of_a, const W* b, int64_t stride, int64_t columns,
                      float* c, bool prefetch) {
  float x[kRows][kDepth];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kDepth; ++i) x[r][i] = a[r * k_of_a + i];
  }
  int64_t n = 0;
  for (; n + kLanes <= columns; n += kLanes) {
    Vector y[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) y[r] = load8(c + r * stride + n);
#pragma GCC unroll 8
    for (int i = 0; i < kDepth; ++i) {
      // The same columns of the next rows: whole lines of them come just in time.
      if (prefetch) __builtin_prefetch(b + (i + kDepth) * stride + n);
      const Vector w = load8(b + i * stride + n);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) y[r] = multiply_add(w, x[r][i], y[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) store8(c + r * stride + n, y[r]);
  }
  for (; n < columns; ++n) {
    for (int r = 0; r < kRows; ++r) {
      float y = c[r * stride + n];
      for (int i = 0; i < kDepth; ++i) {
        y = __builtin_fmaf(static_cast<float>(b[i * stride + n]), x[r][i], y);
      }
      c[r * stride + n] = y;
    }
  }
}

template <int kDepth, class W>
void add_rows(int64_t rows, const float* a, int64_t k_of_a, const W* b, int64_t stride,
              int64_t columns, float* c, bool prefetch) {
  int64_t r = 0;
  for (; r + 3 <= rows; r += 3) {
    add_depth<3, kDepth>(a + r * k_of_a, k_of_a, b, stride, columns, c + r * stride,
                         prefetch && r == 0);
  }
  if (rows - r == 2) {
    add_depth<2, kDepth>(a + r * k_of_a, k_of_a, b, stride, columns, c + r * stride,
                         prefetch && r == 0);
  } else if (rows - r == 1) {
    add_depth<1, kDepth>(a + r * k_of_a, k_of_a, b, stride, columns, c + r * stride,
                         prefetch && r == 0);
  }
}

// Columns [begin, end) of c = a·b, b [K, N].
template <class W>
void multiply_columns(int64_t rows, int64_t n, int64_t k, const float* a, const W* b, float* c,
                      int64_t begin, int64_t end) {
  constexpr int64_t kTileElements = 4096;  // sums that stay in the first-level cache
  const int64_t width = std::clamp<int64_t>(kTileElements / rows / 16 * 16, 64, 2048);
  for (int64_t column = begin; column < end; column += width) {
    const int64_t columns = std::min(width, end - column);
    float* sums = c + column;
    for (int64_t r = 0; r < rows; ++r) std::fill_n(sums + r * n, columns, 0.0f);
    int64_t p = 0;
    if (rows == 1) {
      for (; p + 8 <= k; p += 8) {
        add_depth<1, 8>(a + p, k, b + p * n + column, n, columns, sums, p + 16 <= k);
      }
    }
    for (; p + 4 <= k; p += 4) {
      add_rows<4>(rows, a + p, k, b + p * n + column, n, columns, sums, p + 8 <= k);
    }
    for (; p < k; ++p) add_rows<1>(rows, a + p, k, b + p * n + column, n, columns, sums, false);
  }
}

inline float sum_of(Vector x) {
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

// kRows rows of a against kColumns rows of b [N, K].
template <int kRows, int kColumns, class W>
inline void dots(int64_t n, int64_t k, const float* a, const W* b, float* c) {
  Vector sum[kRows][kColumns] = {};
  int64_t p = 0;
  for (; p + kLanes <= k; p += kLanes) {
    Vector x[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) x[r] = load8(a + r * k + p);
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      const Vector w = load8(b + j * k + p);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sum[r][j] = multiply_add(w, x[r], sum[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kColumns; ++j) {
      float y = sum_of(sum[r][j]);
      for (int64_t i = p; i < k; ++i) {
        y = __builtin_fmaf(static_cast<float>(b[j * k + i]), a[r * k + i], y);
      }
      c[r * n + j] = y;
    }
  }
}

template <int kColumns, class W>
void dots_of_rows(int64_t rows, int64_t n, int64_t k, const float* a, const W* b, float* c) {
  int64_t r = 0;
  for (; r + 3 <= rows; r += 3) dots<3, kColumns>(n, k, a + r * k, b, c + r * n);
  if (rows - r == 2) dots<2, kColumns>(n, k, a + r * k, b, c + r * n);
  if (rows - r == 1) dots<1, kColumns>(n, k, a + r * k, b, c + r * n);
}

// Columns [begin, end) of c = a·bᵀ, b [N, K].
template <class W>
void multiply_transposed(int64_t rows, int64_t n, int64_t k, const float* a, const W* b, float* c,
                         int64_t begin, int64_t end) {
  int64_t j = begin;
  if (rows == 1) {
    for (; j + 8 <= end; j += 8) dots<1, 8>(n, k, a, b + j * k, c + j);
  }
  for (; j + 4 <= end; j += 4) dots_of_rows<4>(rows, n, k, a, b + j * k, c + j);
  for (; j < end; ++j) dots_of_rows<1>(rows, n, k, a, b + j * k, c + j);
}

// One product by address.
struct Operands {
  int64_t rows = 0, n = 0, k = 0;
  const float* a = nullptr;
  const void* b = nullptr;
  float* c = nullptr;
  DType type = DType::f32;
  bool transposed = false;
};

template <class W>
void multiply_part(const Operands& x, int64_t begin, int64_t end) {
  const auto* b = static_cast<const W*>(x.b);
  if (x.transposed) {
    multiply_transposed(x.rows, x.n, x.k, x.a, b, x.c, begin, end);
  } else {
    multiply_columns(x.rows, x.n, x.k, x.a, b, x.c, begin, end);
  }
}

Operands checked(const FewRowsProduct& product) {
  constexpr const char* kWhere = "few_rows_matmul";
  const bool transposed = product.transpose_b == Transpose::yes;
  const Tensor& b = product.b;
  SW_CHECK(b.defined() && b.rank() == 2 && (b.dtype() == DType::f32 || b.dtype() == DType::bf16),
           internal, "{}: b: expected a matrix of f32 or bf16", kWhere);
  Operands x;
  x.rows = product.a.size(0);
  x.n = b.size(transposed ? 0 : 1), x.k = b.size(transposed ? 1 : 0);
  check_tensor(kWhere, "a", product.a, {x.rows, x.k}, DType::f32);
  check_tensor(kWhere, "c", product.c, {x.rows, x.n}, DType::f32);
  x.a = product.a.data<float>(), x.b = b.raw();
  x.c = const_cast<float*>(product.c.data<float>());
  x.type = b.dtype(), x.transposed = transposed;
  return x;
}

// Columns of one product that a thread computes.
struct Part {
  const Operands* product;
  int64_t begin, end;
};

}  // namespace

void few_rows_matmul(const Stream&, std::span<const FewRowsProduct> products) {
  static thread_local std::vector<Operands> operands;
  static thread_local std::vector<Part> parts;
  operands.clear(), parts.clear();
  int64_t total = 0;
  for (const FewRowsProduct& product : products) {
    const Operands x = checked(product);
    if (x.rows == 0) continue;
    operands.push_back(x);
    total += x.n * x.k;
  }
  // Parts of about equal numbers of weights, more than threads, but none so narrow that rows of b
  // are read in crumbs.
  constexpr int64_t kFewest = 1 << 14, kNarrowest = 64;
  const int64_t wanted = std::max<int64_t>(kFewest, total / (3 * num_threads()));
  for (const Operands& x : operands) {
    const int64_t columns =
        std::max(kNarrowest, (wanted / std::max<int64_t>(x.k, 1) + 15) / 16 * 16);
    for (int64_t begin = 0; begin < x.n; begin += columns) {
      parts.push_back({&x, begin, std::min(x.n, begin + columns)});
    }
  }
  const Part* all = parts.data();
  parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Operands& x = *all[i].product;
      if (x.type == DType::f32) {
        multiply_part<float>(x, all[i].begin, all[i].end);
      } else {
        multiply_part<bf16>(x, all[i].begin, all[i].end);
      }
    }
  });
}

namespace {

float dot(const float* x, const float* y, int64_t n) {
  Vector even = {}, odd = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = multiply_add(load8(x + i), load8(y + i), even);
    odd = multiply_add(load8(x + i + kLanes), load8(y + i + kLanes), odd);
  }
  float sum = sum_of(even + odd);
  for (; i < n; ++i) sum = __builtin_fmaf(x[i], y[i], sum);
  return sum;
}

// Softmax of scores [n] in place.
void soften(float* scores, int64_t n) {
  float largest = scores[0];
  for (int64_t j = 1; j < n; ++j) largest = scores[j] > largest ? scores[j] : largest;
  float sum = 0;
  for (int64_t j = 0; j < n; ++j) {
    scores[j] = std::exp(scores[j] - largest);
    sum += scores[j];
  }
  const float inverse = 1.0f / sum;
  for (int64_t j = 0; j < n; ++j) scores[j] *= inverse;
}

}  // namespace

void cached_attention(const Stream&, Tensor& out, const Tensor& q, const Tensor& keys,
                      const Tensor& values, const Tensor& bias, const CachedRows& seen,
                      int64_t heads) {
  constexpr const char* kWhere = "cached_attention";
  const int64_t rows = q.size(0), inner = q.size(1), width = inner / heads;
  check_tensor(kWhere, "out", out, {rows, inner}, DType::f32);
  check_tensor(kWhere, "keys", keys, {keys.size(0), inner}, DType::f32);
  check_tensor(kWhere, "values", values, keys.shape(), DType::f32);
  SW_CHECK(static_cast<int64_t>(seen.begin.size()) == rows + 1, internal,
           "{}: {} queries but {} offsets", kWhere, rows, seen.begin.size());
  const float* queries = q.data<float>();
  const float* key = keys.data<float>();
  const float* value = values.data<float>();
  const float* added = bias ? bias.data<float>() : nullptr;
  const int64_t bias_stride = bias ? bias.size(1) : 0;
  float* y = out.data<float>();
  const int64_t work = std::max<int64_t>(
      1, static_cast<int64_t>(seen.rows.size()) * width / std::max<int64_t>(rows, 1));
  const int64_t grain = std::max<int64_t>(1, kElementGrain / work);
  parallel_for(rows * heads, grain, [&](int64_t first, int64_t last) {
    static thread_local std::vector<float> scores;
    for (int64_t i = first; i < last; ++i) {
      const int64_t r = i / heads, h = i % heads;
      const int32_t* row = seen.rows.data() + seen.begin[r];
      const int64_t count = seen.begin[r + 1] - seen.begin[r];
      scores.resize(static_cast<size_t>(count));
      float* s = scores.data();
      const float* query = queries + r * inner + h * width;
      for (int64_t j = 0; j < count; ++j)
        s[j] = dot(query, key + row[j] * inner + h * width, width);
      if (added != nullptr) {
        for (int64_t j = 0; j < count; ++j) s[j] += added[h * bias_stride + j];
      }
      soften(s, count);
      float* to = y + r * inner + h * width;
      std::fill_n(to, width, 0.0f);
      for (int64_t j = 0; j < count; ++j) {
        const float* from = value + row[j] * inner + h * width;
        const float weight = s[j];
#pragma omp simd
        for (int64_t d = 0; d < width; ++d) to[d] = __builtin_fmaf(from[d], weight, to[d]);
      }
    }
  });
}

}  // namespace sw::kernels::cpu
