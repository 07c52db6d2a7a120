#include "libswitch/kernels/cpu/matmul_panels.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <type_traits>

#include "libswitch/kernels/cpu/lane_mask.h"
#include "libswitch/kernels/cpu/matmul_pack.h"
#include "libswitch/kernels/cpu/scratch.h"

namespace sw::kernels::cpu {
namespace {

// Rows that are multiplied at once: 12 x 32 sums fill 24 of 32 registers.
constexpr int64_t kRows = 12;
// Rows that are copied at once: a panel meets them while it is in the first-level cache.
constexpr int64_t kGroup = 48;
// Stride of copied rows, in words: 37 lines of 64 bytes, so that 12 rows spread over the 64 sets of
// a first-level cache.
constexpr int64_t kRowStride = 592;
static_assert(kRowStride >= kChunkWords);

bool has(dnnl::cpu_isa isa) {
  const int wanted = static_cast<int>(isa);
  return (static_cast<int>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
}

}  // namespace

template <>
bool has_panels<float>() {
  static const bool result = has(dnnl::cpu_isa::avx512_core);
  return result;
}
template <>
bool has_panels<bf16>() {
  static const bool result =
      has(dnnl::cpu_isa::avx512_core_bf16) && !has(dnnl::cpu_isa::avx512_core_amx);
  return result;
}

// All code is compiled for AVX2; what follows runs only after has_panels().
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))), apply_to = function)
#else
#pragma GCC push_options
// GCC 12 warns of its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif

namespace {

template <class T>
inline __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
  if constexpr (std::is_same_v<T, float>) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  } else {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
}

inline void store_rounded(bf16* y, __mmask16 mask, __m512 value, bool add) {
  if (add) {
    const __m512i before =
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, y)), 16);
    value = _mm512_add_ps(value, _mm512_castsi512_ps(before));
  }
  _mm256_mask_storeu_epi16(y, mask, (__m256i)_mm512_cvtneps_pbh(value));
}

// `rows` of kCount rows times one panel. Word (row, p) of a lies at row·kRowStride + p, or at
// p·kRows + row when a was transposed.
template <class T, int kCount, bool kTransposed>
void multiply_rows(int64_t words, const uint32_t* a, const uint32_t* b, const PanelSums& to,
                   int64_t rows, int64_t columns) {
  constexpr int64_t kRow = kTransposed ? 1 : kRowStride;
  constexpr int64_t kStep = kTransposed ? kRows : 1;
  const __mmask16 mask0 = first_lanes(columns), mask1 = first_lanes(columns - 16);
  __m512 sum0[kCount], sum1[kCount];
#pragma GCC unroll 12
  for (int r = 0; r < kCount; ++r) sum0[r] = sum1[r] = _mm512_setzero_ps();
  if (to.start != nullptr) {
#pragma GCC unroll 12
    for (int r = 0; r < kCount; ++r) {
      if (r >= rows) continue;
      const float* from = to.start + r * to.start_stride;
      sum0[r] = _mm512_maskz_loadu_ps(mask0, from);
      sum1[r] = _mm512_maskz_loadu_ps(mask1, from + 16);
    }
  }
  for (int64_t p = 0; p < words; ++p) {
    const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 12
    for (int r = 0; r < kCount; ++r) {
      const __m512i x = _mm512_set1_epi32(static_cast<int>(a[r * kRow]));
      sum0[r] = multiply_add<T>(sum0[r], x, b0);
      sum1[r] = multiply_add<T>(sum1[r], x, b1);
    }
    a += kStep;
    b += kPanelColumns;
  }
#pragma GCC unroll 12
  for (int r = 0; r < kCount; ++r) {
    if (r >= rows) continue;
    if (to.rounded != nullptr) {
      bf16* y = to.rounded + r * to.stride;
      store_rounded(y, mask0, sum0[r], to.add);
      if (mask1 != 0) store_rounded(y + 16, mask1, sum1[r], to.add);
    } else {
      float* y = to.sum + r * to.stride;
      if (to.stream) {
        _mm512_stream_ps(y, sum0[r]);
        _mm512_stream_ps(y + 16, sum1[r]);
        continue;
      }
      if (to.add) {
        sum0[r] = _mm512_add_ps(sum0[r], _mm512_maskz_loadu_ps(mask0, y));
        sum1[r] = _mm512_add_ps(sum1[r], _mm512_maskz_loadu_ps(mask1, y + 16));
      }
      _mm512_mask_storeu_ps(y, mask0, sum0[r]);
      _mm512_mask_storeu_ps(y + 16, mask1, sum1[r]);
    }
  }
}

// 16 words of two neighbouring rows of bf16 (null: zeros), `mask` of them.
inline __m512i pair_rows(const bf16* first, const bf16* second, __mmask16 mask) {
  __m512i words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, first));
  if (second != nullptr) {
    const __m512i upper = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, second));
    words = _mm512_or_si512(words, _mm512_slli_epi32(upper, 16));
  }
  return words;
}

// 16 words along the columns of b [k, n] at row p (in words), `mask` of them.
template <class T>
inline __m512i words_at(const T* b, int64_t stride, int64_t k, int64_t p, __mmask16 mask) {
  if constexpr (std::is_same_v<T, float>) {
    return _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, b + p * stride));
  } else {
    const bf16* first = b + 2 * p * stride;
    return pair_rows(first, 2 * p + 1 < k ? first + stride : nullptr, mask);
  }
}

// Rows that are multiplied together when `left` are.
constexpr int64_t rows_at_once(int64_t left) {
  return left > 8 ? kRows : left > 4 ? 8 : left > 1 ? 4 : 1;
}

// Up to kGroup rows of a [m, k] in blocks of kRows, missing rows of the last block as zeros.
template <class T>
void copy_rows(const T* a, int64_t stride, int64_t rows, int64_t k, uint32_t* blocks) {
  const int64_t words = words_of<T>(k);
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t* to = blocks + r * kRowStride;
    to[words - 1] = 0;
    std::memcpy(to, a + r * stride, static_cast<size_t>(k) * sizeof(T));
  }
  const int64_t whole = rows / kRows * kRows;
  const int64_t end = rows > whole ? whole + rows_at_once(rows - whole) : rows;
  for (int64_t r = rows; r < end; ++r) std::fill_n(blocks + r * kRowStride, words, 0u);
}

// The same of a stored [k, m]: blocks [words of k][kRows].
template <class T>
void copy_transposed_rows(const T* a, int64_t stride, int64_t rows, int64_t k, uint32_t* blocks) {
  const int64_t words = words_of<T>(k);
  for (int64_t p = 0; p < words; ++p) {
    for (int64_t r = 0; r < rows; r += kRows) {
      const __m512i x = words_at<T>(a + r, stride, k, p, first_lanes(std::min(kRows, rows - r)));
      _mm512_mask_storeu_epi32(blocks + r * kRowStride + p * kRows, first_lanes(kRows), x);
    }
  }
}

template <class T, bool kTransposed>
void multiply_groups(int64_t m, int64_t n, int64_t k, const T* a, int64_t stride,
                     const uint32_t* panels, int64_t panel_stride, const PanelSums& to) {
  static thread_local Scratch scratch;
  uint32_t* blocks = scratch.get<uint32_t>(kGroup * kRowStride);
  const int64_t words = words_of<T>(k);
  for (int64_t group = 0; group < m; group += kGroup) {
    const int64_t rows = std::min(kGroup, m - group);
    if constexpr (kTransposed) {
      copy_transposed_rows(a + group, stride, rows, k, blocks);
    } else {
      copy_rows(a + group * stride, stride, rows, k, blocks);
    }
    for (int64_t j = 0; j < n; j += kPanelColumns) {
      const int64_t columns = std::min(kPanelColumns, n - j);
      const uint32_t* panel = panels + j / kPanelColumns * panel_stride;
      for (int64_t r = 0; r < rows; r += kRows) {
        PanelSums at = to;
        if (to.start != nullptr) at.start += (group + r) * to.start_stride + j;
        if (to.sum != nullptr) at.sum += (group + r) * to.stride + j;
        if (to.rounded != nullptr) at.rounded += (group + r) * to.stride + j;
        const int64_t left = std::min(kRows, rows - r);
        const uint32_t* block = blocks + r * kRowStride;
        switch (rows_at_once(left)) {
          case 1: multiply_rows<T, 1, kTransposed>(words, block, panel, at, left, columns); break;
          case 4: multiply_rows<T, 4, kTransposed>(words, block, panel, at, left, columns); break;
          case 8: multiply_rows<T, 8, kTransposed>(words, block, panel, at, left, columns); break;
          default: multiply_rows<T, 12, kTransposed>(words, block, panel, at, left, columns);
        }
      }
    }
  }
}

}  // namespace

template <class T>
void pack_panels(const T* b, int64_t stride, bool transposed, int64_t k, int64_t n,
                 uint32_t* panels) {
  const int64_t words = words_of<T>(k);
  if (!transposed) {
    for (int64_t p = 0; p < words; ++p) {
      for (int64_t j = 0; j < n; j += kPanelColumns) {
        uint32_t* to = panels + j * words + p * kPanelColumns;
        _mm512_storeu_si512(to, words_at<T>(b + j, stride, k, p, first_lanes(n - j)));
        const __mmask16 mask = first_lanes(n - j - 16);
        _mm512_storeu_si512(to + 16, mask == 0 ? _mm512_setzero_si512()
                                               : words_at<T>(b + j + 16, stride, k, p, mask));
      }
    }
    return;
  }
  constexpr int64_t kInWord = 4 / static_cast<int64_t>(sizeof(T));
  const bool whole_words = stride % kInWord == 0 && k % kInWord == 0;
  for (int64_t j = 0; j < n; j += kPanelColumns) {
    uint32_t* to = panels + j * words;
    const int64_t columns = std::min(kPanelColumns, n - j);
    const T* from = b + j * stride;
    if (columns < kPanelColumns) std::fill_n(to, words * kPanelColumns, 0u);
    if (whole_words) {
      pack_transposed(reinterpret_cast<const float*>(from), stride / kInWord, columns, words,
                      reinterpret_cast<float*>(to), kPanelColumns);
      continue;
    }
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t p = 0; p < words; ++p) {
        const int64_t count = std::min(kInWord, k - p * kInWord);
        uint32_t word = 0;
        std::memcpy(&word, from + c * stride + p * kInWord, static_cast<size_t>(count) * sizeof(T));
        to[p * kPanelColumns + c] = word;
      }
    }
  }
}

template <class T>
void multiply_panels(int64_t m, int64_t n, int64_t k, const T* a, int64_t stride, bool transposed,
                     const uint32_t* panels, int64_t panel_stride, const PanelSums& to) {
  if (transposed) {
    multiply_groups<T, true>(m, n, k, a, stride, panels, panel_stride, to);
  } else {
    multiply_groups<T, false>(m, n, k, a, stride, panels, panel_stride, to);
  }
  if (to.stream) _mm_sfence();  // before another thread is told
}

template void pack_panels(const float*, int64_t, bool, int64_t, int64_t, uint32_t*);
template void pack_panels(const bf16*, int64_t, bool, int64_t, int64_t, uint32_t*);
template void multiply_panels(int64_t, int64_t, int64_t, const float*, int64_t, bool,
                              const uint32_t*, int64_t, const PanelSums&);
template void multiply_panels(int64_t, int64_t, int64_t, const bf16*, int64_t, bool,
                              const uint32_t*, int64_t, const PanelSums&);

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

}  // namespace sw::kernels::cpu
