#include "libswitch/kernels/cpu/adafactor_rows.h"

#include <immintrin.h>

#include <array>
#include <type_traits>

#include "libswitch/kernels/cpu/lane_mask.h"
#include "libswitch/kernels/cpu/matmul_panels.h"

namespace sw::kernels::cpu {
namespace {

constexpr int kSumLanes = 16;  // of a row in sum_rows
constexpr int kLanes = 32;     // of a row elsewhere
constexpr int kTileRows = 4;   // rows summed side by side

inline float multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }

// Lanes combined pairwise.
template <class A, size_t N>
inline A fold(std::array<A, N>& lanes) {
  for (size_t width = N / 2; width > 0; width /= 2) {
    for (size_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

namespace portable {

template <int kRows, class A>
void sum_tile(const A* g, int64_t columns, double* row_sums, A* column) {
  std::array<A, kSumLanes> row[kRows] = {};
  const auto add = [&](int64_t j, int lanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const A* x = g + r * columns + j;
#pragma omp simd
      for (int l = 0; l < lanes; ++l) row[r][l] = multiply_add(x[l], x[l], row[r][l]);
#pragma omp simd
      for (int l = 0; l < lanes; ++l) column[j + l] = multiply_add(x[l], x[l], column[j + l]);
    }
  };
  int64_t j = 0;
  for (; j + kSumLanes <= columns; j += kSumLanes) add(j, kSumLanes);
  add(j, static_cast<int>(columns - j));
  for (int r = 0; r < kRows; ++r) row_sums[r] = static_cast<double>(fold(row[r]));
}

template <class A>
RowSquares<A> row_squares(const A* g, const A* factor, const A* w, int64_t n) {
  std::array<A, kLanes> update = {}, weight = {};
  const auto add = [&](int64_t i, int lanes) {
    A u[kLanes];
#pragma omp simd
    for (int l = 0; l < lanes; ++l) u[l] = g[i + l] * factor[i + l];
#pragma omp simd
    for (int l = 0; l < lanes; ++l) update[l] = multiply_add(u[l], u[l], update[l]);
    if (w == nullptr) return;
#pragma omp simd
    for (int l = 0; l < lanes; ++l) weight[l] = multiply_add(w[i + l], w[i + l], weight[l]);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add(i, kLanes);
  add(i, static_cast<int>(n - i));
  return {fold(update), fold(weight)};
}

template <class A, class V>
A update_row(A* w, V* value, const A* g, const A* factor, A step, int64_t n) {
  std::array<A, kLanes> weight = {};
  const auto update = [&](int64_t i, int lanes) {
    A updated[kLanes];
#pragma omp simd
    for (int l = 0; l < lanes; ++l) {
      const A u = g[i + l] * factor[i + l];
      updated[l] = multiply_add(-step, u, w[i + l]);
      w[i + l] = updated[l];
      store_value(value, i + l, updated[l]);
    }
#pragma omp simd
    for (int l = 0; l < lanes; ++l) weight[l] = multiply_add(updated[l], updated[l], weight[l]);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) update(i, kLanes);
  update(i, static_cast<int>(n - i));
  return fold(weight);
}

}  // namespace portable
}  // namespace

// All code is compiled for AVX2; what follows runs only after has_panels().
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), \
                             apply_to = function)
#else
#pragma GCC push_options
// GCC 12 warns of its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace {
namespace wide {

inline float fold(__m512 x) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

template <int kRows>
void sum_tile(const float* g, int64_t columns, double* row_sums, float* column) {
  __m512 row[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) row[r] = _mm512_setzero_ps();
  const auto add = [&](int64_t j, __mmask16 mask) {
    __m512 sum = _mm512_maskz_loadu_ps(mask, column + j);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_maskz_loadu_ps(mask, g + r * columns + j);
      row[r] = _mm512_fmadd_ps(x, x, row[r]);
      sum = _mm512_fmadd_ps(x, x, sum);
    }
    _mm512_mask_storeu_ps(column + j, mask, sum);
  };
  int64_t j = 0;
  for (; j + 16 <= columns; j += 16) add(j, 0xFFFF);
  if (j < columns) add(j, first_lanes(columns - j));
  for (int r = 0; r < kRows; ++r) row_sums[r] = static_cast<double>(fold(row[r]));
}

template <bool kWeight>
RowSquares<float> row_squares(const float* g, const float* factor, const float* w, int64_t n) {
  __m512 update0 = _mm512_setzero_ps(), update1 = update0, weight0 = update0, weight1 = update0;
  const auto add = [&](int64_t i, __mmask16 mask, __m512& update, __m512& weight) {
    const __m512 u =
        _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, g + i), _mm512_maskz_loadu_ps(mask, factor + i));
    update = _mm512_fmadd_ps(u, u, update);
    if constexpr (kWeight) {
      const __m512 x = _mm512_maskz_loadu_ps(mask, w + i);
      weight = _mm512_fmadd_ps(x, x, weight);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    add(i, 0xFFFF, update0, weight0);
    add(i + 16, 0xFFFF, update1, weight1);
  }
  if (i < n) {
    add(i, first_lanes(n - i), update0, weight0);
    add(i + 16, first_lanes(n - i - 16), update1, weight1);
  }
  return {fold(_mm512_add_ps(update0, update1)), fold(_mm512_add_ps(weight0, weight1))};
}

// round_to_upper_half.
inline __m512i round_to_upper_half(__m512 value) {
  const __m512i x = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7FFF)), odd);
  return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q),
                               _mm512_set1_epi32(0x7FC00000));
}

// The upper halves of two vectors, one behind the other.
inline __m512i upper_halves(__m512i low, __m512i high) {
  alignas(64) static constexpr auto kOdd = [] {
    std::array<int16_t, 32> odd{};
    for (int i = 0; i < 32; ++i) odd[static_cast<size_t>(i)] = static_cast<int16_t>(2 * i + 1);
    return odd;
  }();
  return _mm512_permutex2var_epi16(low, _mm512_load_si512(kOdd.data()), high);
}

template <bool kStream, class V>
float update_row(float* w, V* value, const float* g, const float* factor, float step, int64_t n) {
  const __m512 steps = _mm512_set1_ps(step);
  __m512 weight0 = _mm512_setzero_ps(), weight1 = weight0;
  const auto update = [&](int64_t i, __mmask16 mask, __m512& weight) {
    const __m512 u =
        _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, g + i), _mm512_maskz_loadu_ps(mask, factor + i));
    const __m512 updated = _mm512_fnmadd_ps(steps, u, _mm512_maskz_loadu_ps(mask, w + i));
    _mm512_mask_storeu_ps(w + i, mask, updated);
    weight = _mm512_fmadd_ps(updated, updated, weight);
    return updated;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const __m512 low = update(i, 0xFFFF, weight0);
    const __m512 high = update(i + 16, 0xFFFF, weight1);
    if constexpr (std::is_same_v<V, bf16>) {
      const __m512i halves = upper_halves(round_to_upper_half(low), round_to_upper_half(high));
      if constexpr (kStream) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(value + i), halves);
      } else {
        _mm512_storeu_si512(value + i, halves);
      }
    }
  }
  if (i < n) {
    const __mmask16 mask0 = first_lanes(n - i), mask1 = first_lanes(n - i - 16);
    const __m512 low = update(i, mask0, weight0);
    const __m512 high = update(i + 16, mask1, weight1);
    if constexpr (std::is_same_v<V, bf16>) {
      _mm512_mask_storeu_epi16(value + i, (__mmask32{mask1} << 16) | mask0,
                               upper_halves(round_to_upper_half(low), round_to_upper_half(high)));
    }
  }
  return fold(_mm512_add_ps(weight0, weight1));
}

}  // namespace wide
}  // namespace

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

template <class A>
void sum_rows(const A* g, int64_t rows, int64_t columns, double* row_sums, A* column_sums) {
  const auto each = [&](const auto& tile, const auto& single) {
    int64_t i = 0;
    for (; i + kTileRows <= rows; i += kTileRows) {
      tile(g + i * columns, columns, row_sums + i, column_sums);
    }
    for (; i < rows; ++i) single(g + i * columns, columns, row_sums + i, column_sums);
  };
  if constexpr (std::is_same_v<A, float>) {
    if (has_panels<float>()) return each(wide::sum_tile<kTileRows>, wide::sum_tile<1>);
  }
  each(portable::sum_tile<kTileRows, A>, portable::sum_tile<1, A>);
}

template <class A>
RowSquares<A> row_squares(const A* g, const A* factor, const A* w, int64_t n) {
  if constexpr (std::is_same_v<A, float>) {
    if (has_panels<float>()) {
      return w == nullptr ? wide::row_squares<false>(g, factor, w, n)
                          : wide::row_squares<true>(g, factor, w, n);
    }
  }
  return portable::row_squares(g, factor, w, n);
}

template <class A, class V>
A update_row(A* w, V* value, const A* g, const A* factor, A step, int64_t n, bool past_caches) {
  if constexpr (std::is_same_v<A, float> &&
                (std::is_same_v<V, bf16> || std::is_same_v<V, NoValue>)) {
    if (has_panels<float>()) {
      const bool lines = reinterpret_cast<uintptr_t>(value) % 64 == 0;
      return past_caches && lines ? wide::update_row<true>(w, value, g, factor, step, n)
                                  : wide::update_row<false>(w, value, g, factor, step, n);
    }
  }
  return portable::update_row(w, value, g, factor, step, n);
}

void streamed_rows_done() { _mm_sfence(); }

template void sum_rows(const float*, int64_t, int64_t, double*, float*);
template void sum_rows(const double*, int64_t, int64_t, double*, double*);
template RowSquares<float> row_squares(const float*, const float*, const float*, int64_t);
template RowSquares<double> row_squares(const double*, const double*, const double*, int64_t);
#define SW_UPDATE_ROW(A, V) template A update_row(A*, V*, const A*, const A*, A, int64_t, bool);
SW_UPDATE_ROW(float, NoValue)
SW_UPDATE_ROW(float, bf16)
SW_UPDATE_ROW(float, float)
SW_UPDATE_ROW(float, double)
SW_UPDATE_ROW(double, NoValue)
SW_UPDATE_ROW(double, bf16)
SW_UPDATE_ROW(double, float)
SW_UPDATE_ROW(double, double)
#undef SW_UPDATE_ROW

}  // namespace sw::kernels::cpu
