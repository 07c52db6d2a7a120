// Copies of operand blocks in the order and type in which the inner products read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {

/// One element in another type; a bf16 stays itself.
template <class To, class From>
inline To element_as(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else {
    return static_cast<To>(static_cast<Acc<From>>(x));
  }
}

/// to[r·to_stride + c] = from[r·from_stride + c].
template <class From, class To>
inline void pack(const From* from, int64_t from_stride, int64_t rows, int64_t columns, To* to,
                 int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const From* x = from + r * from_stride;
    To* y = to + r * to_stride;
    if constexpr (std::is_same_v<From, To>) {
      std::memcpy(y, x, static_cast<size_t>(columns) * sizeof(To));
    } else {
      for (int64_t c = 0; c < columns; ++c) y[c] = element_as<To>(x[c]);
    }
  }
}

namespace detail {

// Vectors of GCC: the compiler finds the shuffles of the processor.
typedef float Float8 __attribute__((vector_size(32)));
typedef uint32_t Word8 __attribute__((vector_size(32)));
typedef uint16_t Half8 __attribute__((vector_size(16)));

inline Word8 load8(const float* x) {
  Word8 y;
  std::memcpy(&y, x, sizeof y);
  return y;
}
inline Word8 load8(const bf16* x) {
  Half8 y;
  std::memcpy(&y, x, sizeof y);
  return __builtin_convertvector(y, Word8) << 16;
}
inline void store8(float* y, Word8 x) { std::memcpy(y, &x, sizeof x); }
inline void store8(bf16* y, Word8 x) {  // of words whose lower halves are 0
  const Half8 half = __builtin_convertvector(x >> 16, Half8);
  std::memcpy(static_cast<void*>(y), &half, sizeof half);
}

// Transposes 8 rows of 8.
template <class From, class To>
inline void transpose8(const From* from, int64_t from_stride, To* to, int64_t to_stride) {
  Word8 pairs[8], quads[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Word8 x = load8(from + 2 * i * from_stride);
    const Word8 y = load8(from + (2 * i + 1) * from_stride);
    pairs[2 * i] = __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[2 * i + 1] = __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      quads[4 * i + 2 * j] =
          __builtin_shufflevector(pairs[4 * i + j], pairs[4 * i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      quads[4 * i + 2 * j + 1] = __builtin_shufflevector(pairs[4 * i + j], pairs[4 * i + j + 2], 2,
                                                         3, 10, 11, 6, 7, 14, 15);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    store8(to + i * to_stride,
           __builtin_shufflevector(quads[i], quads[i + 4], 0, 1, 2, 3, 8, 9, 10, 11));
    store8(to + (i + 4) * to_stride,
           __builtin_shufflevector(quads[i], quads[i + 4], 4, 5, 6, 7, 12, 13, 14, 15));
  }
}

}  // namespace detail

/// to[c·to_stride + r] = from[r·from_stride + c].
template <class From, class To>
inline void pack_transposed(const From* from, int64_t from_stride, int64_t rows, int64_t columns,
                            To* to, int64_t to_stride) {
  int64_t full_rows = 0, full_columns = 0;
  if constexpr (!std::is_same_v<From, double>) {
    full_rows = rows / 8 * 8;
    full_columns = columns / 8 * 8;
    for (int64_t r = 0; r < full_rows; r += 8) {
      for (int64_t c = 0; c < full_columns; c += 8) {
        detail::transpose8(from + r * from_stride + c, from_stride, to + c * to_stride + r,
                           to_stride);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = r < full_rows ? full_columns : 0; c < columns; ++c) {
      to[c * to_stride + r] = element_as<To>(from[r * from_stride + c]);
    }
  }
}

}  // namespace sw::kernels::cpu
