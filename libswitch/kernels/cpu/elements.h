// What the CPU kernels share: loads and stores of the element types, sums of fixed order, and the
// step from a dtype to a type.
//
// Loops are written so that GCC vectorises them: `store` assigns the bits of a bf16 directly (a
// temporary object would stop it), comparisons are `?:` and not std::max. An element's value never
// depends on its place in a loop.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "libswitch/kernels/kernel.h"

namespace sw::kernels::cpu {

template <class T>
inline Acc<T> load(const T* x, int64_t i) {
  return static_cast<Acc<T>>(x[i]);
}
inline void store(float* y, int64_t i, float value) { y[i] = value; }
inline void store(float* y, int64_t i, double value) { y[i] = static_cast<float>(value); }
inline void store(double* y, int64_t i, double value) { y[i] = value; }
inline void store(bf16* y, int64_t i, float value) { y[i].bits = bf16::round(value); }
inline void store(bf16* y, int64_t i, double value) {
  y[i].bits = bf16::round(static_cast<float>(value));
}

/// y[i] = value, or += when `Add` (std::bool_constant, from with_accum).
template <class Add, class T>
inline void put(Add, T* y, int64_t i, Acc<T> value) {
  if constexpr (Add::value) value += load(y, i);
  store(y, i, value);
}

/// Calls fn(std::true_type) for Accum::add, else fn(std::false_type).
template <class Fn>
void with_accum(Accum accum, const Fn& fn) {
  if (accum == Accum::add) {
    fn(std::true_type{});
  } else {
    fn(std::false_type{});
  }
}

/// Calls fn(std::type_identity<T>) for the type of a dtype of activations: f32, bf16 or f64.
template <class Fn>
void with_element(const char* where, DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::f32: return fn(std::type_identity<float>{});
    case DType::bf16: return fn(std::type_identity<bf16>{});
    case DType::f64: return fn(std::type_identity<double>{});
    default: fail(ErrorKind::internal, "{}: not a kernel for {}", where, dtype_name(dtype));
  }
}

/// The same for a master dtype: f32 or f64.
template <class Fn>
void with_master(const char* where, DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::f32: return fn(std::type_identity<float>{});
    case DType::f64: return fn(std::type_identity<double>{});
    default:
      fail(ErrorKind::internal, "{}: master dtype expected, got {}", where, dtype_name(dtype));
  }
}

/// Σ term(i), i in [0, n), over 128 bytes of lanes that are combined pairwise: one order for any
/// processor.
template <class A, class Term>
inline A lane_sum(int64_t n, const Term& term) {
  constexpr int kLanes = 128 / sizeof(A);
  A lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma GCC unroll 32
    for (int l = 0; l < kLanes; ++l) lanes[l] += term(i + l);
  }
  for (int l = 0; i + l < n; ++l) lanes[l] += term(i + l);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

/// The largest term(i), at least `floor`; NaN terms are passed over.
template <class A, class Term>
inline A lane_max(int64_t n, A floor, const Term& term) {
  constexpr int kLanes = 128 / sizeof(A);
  A lanes[kLanes];
  for (int l = 0; l < kLanes; ++l) lanes[l] = floor;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma GCC unroll 32
    for (int l = 0; l < kLanes; ++l) {
      const A value = term(i + l);
      lanes[l] = value > lanes[l] ? value : lanes[l];
    }
  }
  for (int l = 0; i + l < n; ++l) {
    const A value = term(i + l);
    lanes[l] = value > lanes[l] ? value : lanes[l];
  }
  A largest = floor;
  for (int l = 0; l < kLanes; ++l) largest = lanes[l] > largest ? lanes[l] : largest;
  return largest;
}

/// Sum of values[0, n) in a binary tree whose shape depends on n only; uses values as scratch.
inline double tree_sum(double* values, int64_t n) {
  if (n == 0) return 0;
  for (int64_t stride = 1; stride < n; stride *= 2) {
    for (int64_t i = 0; i + stride < n; i += 2 * stride) values[i] += values[i + stride];
  }
  return values[0];
}

/// Elements of one chunk of an element-by-element map.
inline constexpr int64_t kElementGrain = int64_t{1} << 15;

/// Rows of `width` elements in one chunk: about kElementGrain elements.
inline int64_t row_grain(int64_t width) {
  return std::max<int64_t>(1, kElementGrain / std::max<int64_t>(width, 1));
}

}  // namespace sw::kernels::cpu
