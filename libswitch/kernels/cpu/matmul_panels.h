// Products in AVX-512 vectors: twelve rows of op(a) by panels of 32 columns of op(b), all sums in
// registers. oneDNN's own kernels reach the same rate on large products; what a training step has
// are small ones (experts of some 250 rows, heads of 64 columns), where the copies into oneDNN's
// layouts and out of its f32 sums cost a third of the time. Here rows are read where they are but
// for one copy of 12, and results leave the registers once, in their own type.
//
// An element of c is one chain over k of fused multiply-adds (f32) or of dot products of pairs
// (bf16, VDPBF16PS), whatever the other sizes: chunks of k continue the chain.
#pragma once

#include <cstdint>

#include "libswitch/tensor/dtype.h"

namespace sw::kernels::cpu {

/// Whether this processor (and oneDNN's ONEDNN_MAX_CPU_ISA) has the instructions for operands of T,
/// float or bf16. False for bf16 with AMX, for which oneDNN is the better choice.
template <class T>
bool has_panels();

/// Columns of a panel.
inline constexpr int64_t kPanelColumns = 32;
/// Words of 4 bytes along k in one chunk: an f32 or two neighbouring bf16 each.
inline constexpr int64_t kChunkWords = 512;

template <class T>
constexpr int64_t words_of(int64_t k) {
  constexpr int64_t kInWord = 4 / static_cast<int64_t>(sizeof(T));
  return (k + kInWord - 1) / kInWord;
}
/// Elements of T along k in one chunk.
template <class T>
constexpr int64_t kChunkDepth = kChunkWords * 4 / static_cast<int64_t>(sizeof(T));

/// Words that pack_panels writes.
template <class T>
constexpr int64_t panel_words(int64_t k, int64_t n) {
  return words_of<T>(k) * ((n + kPanelColumns - 1) / kPanelColumns * kPanelColumns);
}

/// op(b) [k, n] as panels [n/32][words of k][32]; missing columns and the second half of the last
/// word are zeros. `stride`: of stored rows of b, which are [n, k] when transposed.
template <class T>
void pack_panels(const T* b, int64_t stride, bool transposed, int64_t k, int64_t n,
                 uint32_t* panels);

/// Where sums start and where they go: to f32 or to bf16.
struct PanelSums {
  const float* start = nullptr;  // [m, n] from an earlier chunk, null: zeros
  int64_t start_stride = 0;
  float* sum = nullptr;  // [m, n]
  bf16* rounded = nullptr;
  int64_t stride = 0;  // of sum or rounded
  bool add = false;    // to what is there
  // Past the caches: sum, without add, aligned to 64 bytes like its rows, whole panels only.
  bool stream = false;
};

/// Sums of op(a) [m, k] times packed panels of n columns, k at most kChunkDepth. Panel number i
/// begins at panels + i·panel_stride; `stride`: of stored rows of a, which are [k, m] when
/// transposed.
template <class T>
void multiply_panels(int64_t m, int64_t n, int64_t k, const T* a, int64_t stride, bool transposed,
                     const uint32_t* panels, int64_t panel_stride, const PanelSums& to);

/// The same for any k: sum [m, n] = or (`go_on`) += op(a)·op(b). `panels` hold all of k.
template <class T>
void multiply_panels(int64_t m, int64_t n, int64_t k, const T* a, int64_t stride, bool transposed,
                     const uint32_t* panels, int64_t panel_stride, float* sum, int64_t sum_stride,
                     bool go_on) {
  for (int64_t p = 0; p < k; p += kChunkDepth<T>) {
    PanelSums to;
    to.sum = sum, to.stride = sum_stride;
    if (go_on || p > 0) to.start = sum, to.start_stride = sum_stride;
    multiply_panels(m, n, k - p < kChunkDepth<T> ? k - p : kChunkDepth<T>,
                    a + (transposed ? p * stride : p), stride, transposed,
                    panels + words_of<T>(p) * kPanelColumns, panel_stride, to);
  }
}

}  // namespace sw::kernels::cpu
