// Element types and bfloat16.
#pragma once

#include <bit>
#include <cstdint>

namespace sw {

enum class DType : uint8_t { f32, bf16, f64, i32, u8 };

/// Bytes of one element.
int64_t element_bytes(DType dtype);
/// "f32", "bf16", "f64", "i32", "u8".
const char* dtype_name(DType dtype);
bool is_floating(DType dtype);

/// bfloat16: the upper half of an IEEE binary32; conversion rounds to nearest even and keeps NaN
/// quiet.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  bf16(float value) : bits(round(value)) {}  // NOLINT: implicit like float from double
  operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
  static uint16_t round(float value) {
    const uint32_t x = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (x + 0x7FFFu + ((x >> 16) & 1u)) >> 16;
    const uint32_t nan = (x >> 16) | 0x40u;
    return static_cast<uint16_t>((x & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
  }
};

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<bf16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::u8;
}

/// Type in which sums and transcendental functions over T are computed: float, or double for
/// double.
template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using Acc = typename Accumulator<T>::type;

/// The dtype of master weights, gradients, norms, softmax and router of a model computed in
/// `compute` (selective precision, Fedus et al. 2022, section 2.4): f32, or f64 for f64 (gradient
/// checks).
constexpr DType master_dtype(DType compute) {
  return compute == DType::f64 ? DType::f64 : DType::f32;
}

}  // namespace sw
