#include "libswitch/kernels/few_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/matmul_pack.h"
#include "libswitch/kernels/cpu/matmul_panels.h"
#include "libswitch/kernels/cpu/scratch.h"
#include "libswitch/kernels/cpu/vector_math.h"

namespace sw::kernels {

Shape panels_shape(int64_t n, int64_t k, DType dtype) {
  const int64_t stored_k = dtype == DType::bf16 ? (k + 1) / 2 * 2 : k;
  return {(n + kFewRowsPanel - 1) / kFewRowsPanel, stored_k, kFewRowsPanel};
}

}  // namespace sw::kernels

namespace sw::kernels::cpu {
namespace {

static_assert(kFewRowsPanel == kPanelColumns);

// Eight floats in a register; memory need not be aligned. (AVX2 and FMA are the floor of all code.)
using Vector = __m256;
constexpr int64_t kLanes = 8;

inline Vector load8(const float* x) { return _mm256_loadu_ps(x); }
inline Vector load8(const bf16* x) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline void store8(float* y, Vector x) { _mm256_storeu_ps(y, x); }
inline Vector multiply_add(Vector w, Vector x, Vector y) { return _mm256_fmadd_ps(w, x, y); }

// sums [kRows, 32] = (`first`) or += kRows rows of a times rows [0, depth) of one panel.
template <int kRows, class W>
inline void add_panel(const float* a, int64_t k_of_a, const W* panel, int64_t depth, float* sums,
                      bool first) {
  constexpr int kVectors = kFewRowsPanel / kLanes;
  Vector y[kRows][kVectors];
#pragma GCC unroll 3
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      y[r][v] = first ? _mm256_setzero_ps() : load8(sums + r * kFewRowsPanel + v * kLanes);
    }
  }
  for (int64_t p = 0; p < depth; ++p) {
    Vector x[kRows];
#pragma GCC unroll 3
    for (int r = 0; r < kRows; ++r) x[r] = _mm256_broadcast_ss(a + r * k_of_a + p);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vector w = load8(panel + p * kFewRowsPanel + v * kLanes);
#pragma GCC unroll 3
      for (int r = 0; r < kRows; ++r) y[r][v] = multiply_add(w, x[r], y[r][v]);
    }
  }
#pragma GCC unroll 3
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store8(sums + r * kFewRowsPanel + v * kLanes, y[r][v]);
    }
  }
}

// One product by address.
struct Operands {
  int64_t rows = 0, n = 0, k = 0;
  int64_t stored_k = 0;
  const float* a = nullptr;
  const bf16* rounded = nullptr;  // a, where bf16 are multiplied
  const void* panels = nullptr;
  float* c = nullptr;
  DType type = DType::f32;
  int64_t panel_count() const { return (n + kFewRowsPanel - 1) / kFewRowsPanel; }
};

// Panels [begin, end) of a product, in vectors of AVX-512.
template <class T>
void multiply_wide(const Operands& x, const T* a, int64_t begin, int64_t end) {
  const int64_t stride = words_of<T>(x.k) * kPanelColumns;
  const int64_t column = begin * kPanelColumns;
  multiply_panels<T>(x.rows, std::min(x.n, end * kPanelColumns) - column, x.k, a, x.k, false,
                     static_cast<const uint32_t*>(x.panels) + begin * stride, stride, x.c + column,
                     x.n, false);
}

// The same in vectors of AVX2; bf16 are widened.
template <class W>
void multiply_part(const Operands& x, int64_t begin, int64_t end) {
  // Rows of a panel that stay in the first-level cache while all rows of a meet them.
  constexpr int64_t kDepth = 128;
  static thread_local Scratch scratch;
  float* sums = scratch.get<float>(x.rows * kFewRowsPanel);
  for (int64_t panel = begin; panel < end; ++panel) {
    const W* w = static_cast<const W*>(x.panels) + panel * x.stored_k * kFewRowsPanel;
    const int64_t step = x.rows <= 3 ? std::max<int64_t>(x.k, 1) : kDepth;
    for (int64_t p = 0; p == 0 || p < x.k; p += step) {
      const int64_t depth = std::min(step, x.k - p);
      const W* at = w + p * kFewRowsPanel;
      int64_t r = 0;
      for (; r + 3 <= x.rows; r += 3) {
        add_panel<3>(x.a + r * x.k + p, x.k, at, depth, sums + r * kFewRowsPanel, p == 0);
      }
      if (x.rows - r == 2) {
        add_panel<2>(x.a + r * x.k + p, x.k, at, depth, sums + r * kFewRowsPanel, p == 0);
      } else if (x.rows - r == 1) {
        add_panel<1>(x.a + r * x.k + p, x.k, at, depth, sums + r * kFewRowsPanel, p == 0);
      }
    }
    const int64_t column = panel * kFewRowsPanel;
    const int64_t columns = std::min(kFewRowsPanel, x.n - column);
    for (int64_t r = 0; r < x.rows; ++r) {
      std::copy_n(sums + r * kFewRowsPanel, columns, x.c + r * x.n + column);
    }
  }
}

Operands checked(const FewRowsProduct& product) {
  constexpr const char* kWhere = "few_rows_matmul";
  const Tensor& panels = product.panels;
  SW_CHECK(panels.defined() && panels.rank() == 3, internal, "{}: panels expected", kWhere);
  Operands x;
  x.rows = product.a.size(0), x.n = product.c.size(1), x.k = product.a.size(1);
  check_tensor(kWhere, "panels", panels, panels_shape(x.n, x.k, panels.dtype()), panels.dtype());
  x.stored_k = panels.size(1);
  check_tensor(kWhere, "a", product.a, {x.rows, x.k}, DType::f32);
  check_tensor(kWhere, "c", product.c, {x.rows, x.n}, DType::f32);
  x.a = product.a.data<float>(), x.panels = panels.raw();
  x.c = const_cast<float*>(product.c.data<float>());
  x.type = panels.dtype();
  return x;
}

// Panels of one product that a thread computes.
struct Part {
  const Operands* product;
  int64_t begin, end;
};

void multiply_part(const Part& part) {
  const Operands& x = *part.product;
  if (x.type == DType::f32) {
    // A single row is bound by memory either way.
    if (has_panels<float>() && x.rows > 3) return multiply_wide(x, x.a, part.begin, part.end);
    return multiply_part<float>(x, part.begin, part.end);
  }
  if (x.rounded != nullptr) return multiply_wide(x, x.rounded, part.begin, part.end);
  multiply_part<bf16>(x, part.begin, part.end);
}

template <class W>
void pack(const Tensor& b, bool transposed, Tensor& panels) {
  const int64_t n = b.size(transposed ? 0 : 1), k = b.size(transposed ? 1 : 0);
  const int64_t stored_k = panels.size(1);
  const W* from = b.data<W>();
  W* all = panels.data<W>();
  parallel_for(panels.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      W* to = all + panel * stored_k * kFewRowsPanel;
      const int64_t column = panel * kFewRowsPanel;
      const int64_t columns = std::min(kFewRowsPanel, n - column);
      const W* at = from + (transposed ? column * k : column);
      if (has_panels<W>()) {
        pack_panels<W>(at, transposed ? k : n, transposed, k, columns,
                       reinterpret_cast<uint32_t*>(to));
        continue;
      }
      if (columns < kFewRowsPanel || stored_k > k) std::fill_n(to, stored_k * kFewRowsPanel, W{});
      if (transposed) {
        pack_transposed(at, k, columns, k, to, kFewRowsPanel);
      } else {
        for (int64_t p = 0; p < k; ++p) std::copy_n(at + p * n, columns, to + p * kFewRowsPanel);
      }
    }
  });
}

}  // namespace

void pack_columns(const Stream&, Tensor& panels, const Tensor& b, Transpose transpose_b) {
  constexpr const char* kWhere = "pack_columns";
  SW_CHECK(b.defined() && b.rank() == 2 && (b.dtype() == DType::f32 || b.dtype() == DType::bf16),
           internal, "{}: b: expected a matrix of f32 or bf16", kWhere);
  const bool transposed = transpose_b == Transpose::yes;
  const int64_t n = b.size(transposed ? 0 : 1), k = b.size(transposed ? 1 : 0);
  check_tensor(kWhere, "panels", panels, panels_shape(n, k, b.dtype()), b.dtype());
  if (b.dtype() == DType::f32) {
    pack<float>(b, transposed, panels);
  } else {
    pack<bf16>(b, transposed, panels);
  }
}

void few_rows_matmul(const Stream&, std::span<const FewRowsProduct> products) {
  static thread_local std::vector<Operands> operands;
  static thread_local std::vector<Part> parts;
  operands.clear(), parts.clear();
  int64_t total = 0, to_round = 0;
  for (const FewRowsProduct& product : products) {
    const Operands x = checked(product);
    if (x.rows == 0) continue;
    operands.push_back(x);
    total += x.n * x.k;
    if (x.type == DType::bf16) to_round += x.rows * x.k;
  }
  if (to_round > 0 && has_panels<bf16>()) {
    static thread_local Scratch scratch;
    bf16* free = scratch.get<bf16>(to_round);
    for (size_t i = 0; i < operands.size(); ++i) {
      Operands& x = operands[i];
      if (x.type != DType::bf16) continue;
      if (i > 0 && operands[i - 1].a == x.a && operands[i - 1].rounded != nullptr) {
        x.rounded = operands[i - 1].rounded;
        continue;
      }
      const float* a = x.a;
      bf16* to = free;
#pragma omp simd
      for (int64_t j = 0; j < x.rows * x.k; ++j) store(to, j, a[j]);
      x.rounded = free;
      free += x.rows * x.k;
    }
  }
  // Parts of about equal numbers of weights, a few for each thread.
  constexpr int64_t kFewest = 1 << 14;
  const int64_t wanted = std::max<int64_t>(kFewest, total / (4 * num_threads()));
  for (const Operands& x : operands) {
    const int64_t panels = std::max<int64_t>(1, wanted / std::max<int64_t>(x.k * kFewRowsPanel, 1));
    for (int64_t begin = 0; begin < x.panel_count(); begin += panels) {
      parts.push_back({&x, begin, std::min(x.panel_count(), begin + panels)});
    }
  }
  const Part* all = parts.data();
  parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) multiply_part(all[i]);
  });
}

namespace {

inline float sum_of(Vector x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

float dot(const float* x, const float* y, int64_t n) {
  Vector even = _mm256_setzero_ps(), odd = even;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = multiply_add(load8(x + i), load8(y + i), even);
    odd = multiply_add(load8(x + i + kLanes), load8(y + i + kLanes), odd);
  }
  float sum = sum_of(_mm256_add_ps(even, odd));
  for (; i < n; ++i) sum = __builtin_fmaf(x[i], y[i], sum);
  return sum;
}

// y[i] = e^(x[i] - largest); their sum. y may be x.
float exponentials(const float* x, int64_t n, float largest, float* y) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] = vector_exp(x[j] - largest);
  return lane_sum<float>(n, [y](int64_t j) { return y[j]; });
}

float largest_of(const float* x, int64_t n) {
  float largest = x[0];
#pragma omp simd reduction(max : largest)
  for (int64_t j = 1; j < n; ++j) largest = x[j] > largest ? x[j] : largest;
  return largest;
}

// Softmax of scores [n] in place.
void soften(float* scores, int64_t n) {
  const float inverse = 1.0f / exponentials(scores, n, largest_of(scores, n), scores);
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) scores[j] *= inverse;
}

}  // namespace

void rows_log_sum_exp(const Stream&, Tensor& log_z, const Tensor& logits) {
  const int64_t rows = logits.size(0), columns = logits.size(1);
  check_tensor("rows_log_sum_exp", "logits", logits, {rows, columns}, DType::f32);
  check_tensor("rows_log_sum_exp", "log_z", log_z, {rows}, DType::f32);
  const float* in = logits.data<float>();
  float* out = log_z.data<float>();
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    constexpr int64_t kBlock = 1024;
    alignas(64) float block[kBlock];
    for (int64_t r = begin; r < end; ++r) {
      const float* x = in + r * columns;
      const float largest = largest_of(x, columns);
      double sum = 0;
      for (int64_t j = 0; j < columns; j += kBlock) {
        sum += double{exponentials(x + j, std::min(kBlock, columns - j), largest, block)};
      }
      out[r] = largest + static_cast<float>(std::log(sum));
    }
  });
}

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
