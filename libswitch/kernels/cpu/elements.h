// What the CPU kernels share: loads and stores of the element types, sums of fixed order, and the
// step from a dtype to a type.
//
// Loops are written so that GCC vectorises them: `store` assigns the bits of a bf16 directly (a
// temporary object would stop it), comparisons are `?:` and not std::max. An element's value never
// depends on its place in a loop.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "libswitch/kernels/kernel.h"

namespace sw::kernels::cpu {

template <class T>
inline Acc<T> load(const T* x, int64_t i) {
  return static_cast<Acc<T>>(x[i]);
}
/// The upper half of the result is bf16::round(value), but that any NaN becomes the one quiet NaN:
/// its payload would cost a vectorised loop four more instructions.
inline uint32_t round_to_upper_half(float value) {
  const uint32_t x = std::bit_cast<uint32_t>(value);
  return value != value ? 0x7FC00000u : x + 0x7FFFu + ((x >> 16) & 1u);
}
inline void store(float* y, int64_t i, float value) { y[i] = value; }
inline void store(float* y, int64_t i, double value) { y[i] = static_cast<float>(value); }
inline void store(double* y, int64_t i, double value) { y[i] = value; }
inline void store(bf16* y, int64_t i, float value) {
  y[i].bits = static_cast<uint16_t>(round_to_upper_half(value) >> 16);
}
inline void store(bf16* y, int64_t i, double value) { store(y, i, static_cast<float>(value)); }

/// y[i] = value, or += when `Add` (std::bool_constant, from with_accum).
template <class Add, class T>
inline void put(Add, T* y, int64_t i, Acc<T> value) {
  if constexpr (Add::value) value += load(y, i);
  store(y, i, value);
}

/// Two neighbouring bf16 in one word, first one low. Loops over pairs need none of the packing and
/// unpacking that halves the rate of loops over single bf16.
using Bf16Pair [[gnu::may_alias, gnu::aligned(2)]] = uint32_t;
inline float first_of(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
inline float second_of(uint32_t pair) { return std::bit_cast<float>(pair & 0xFFFF0000u); }
inline uint32_t pair_of(float first, float second) {
  return (round_to_upper_half(first) >> 16) | (round_to_upper_half(second) & 0xFFFF0000u);
}

/// to[i] = fn(in[i]...), or +=, for i in [0, n); all of one element type; `to` may be one of `in`.
template <class Add, class T, class Fn, class... In>
inline void map(Add add, T* to, int64_t n, const Fn& fn, const In*... in) {
  static_assert((std::is_same_v<T, In> && ...));
  int64_t i = 0;
  if constexpr (std::is_same_v<T, bf16>) {
    auto* to_pair = reinterpret_cast<Bf16Pair*>(to);
    const auto pair = [](const bf16* x, int64_t k) {
      return uint32_t{reinterpret_cast<const Bf16Pair*>(x)[k]};
    };
#pragma omp simd
    for (int64_t k = 0; k < n / 2; ++k) {
      float first = fn(first_of(pair(in, k))...);
      float second = fn(second_of(pair(in, k))...);
      if constexpr (Add::value) {
        first += first_of(to_pair[k]);
        second += second_of(to_pair[k]);
      }
      to_pair[k] = pair_of(first, second);
    }
    i = n / 2 * 2;
  }
#pragma omp simd
  for (int64_t k = i; k < n; ++k) put(add, to, k, fn(load(in, k)...));
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

/// Calls fn with a pointer to the elements of an optimizer's `value`, or with a NoValue* when it is
/// undefined; value_at and store_value then do nothing.
struct NoValue {};
template <class Fn>
void with_value(const char* where, Tensor& value, const Fn& fn) {
  if (!value) return fn(static_cast<NoValue*>(nullptr));
  with_element(where, value.dtype(), [&]<class V>(std::type_identity<V>) { fn(value.data<V>()); });
}
inline NoValue* value_at(NoValue* value, int64_t) { return value; }
template <class V>
inline V* value_at(V* value, int64_t offset) {
  return value + offset;
}
template <class A>
inline void store_value(NoValue*, int64_t, A) {}
template <class V, class A>
inline void store_value(V* value, int64_t i, A element) {
  store(value, i, element);
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
