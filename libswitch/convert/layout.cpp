#include "libswitch/convert/layout.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"

namespace sw {
namespace {

// Squares of this side stay in the first cache, whichever way they are walked.
constexpr int64_t kSide = 32;

template <class T>
void transpose(const char* source, int64_t rows, int64_t columns, int64_t first, int64_t count,
               char* out) {
  const auto* from = reinterpret_cast<const T*>(source);
  auto* to = reinterpret_cast<T*>(out);
  parallel_for(count, kSide, [&](int64_t begin, int64_t end) {
    for (int64_t r0 = 0; r0 < rows; r0 += kSide) {
      const int64_t r1 = std::min(rows, r0 + kSide);
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t r = r0; r < r1; ++r) to[c * rows + r] = from[r * columns + first + c];
      }
    }
  });
}

double element_value(const char* source, ElementType type, int64_t i) {
  const auto read = [&](auto value) {
    std::memcpy(&value, source + i * static_cast<int64_t>(sizeof value), sizeof value);
    return value;
  };
  switch (type) {
    case ElementType::f16: return float_from_half(read(uint16_t{}));
    case ElementType::bf16: return std::bit_cast<float>(uint32_t{read(uint16_t{})} << 16);
    case ElementType::f32: return read(float{});
    case ElementType::f64: return read(double{});
    default: fail(ErrorKind::internal, "convert: element type {}", element_name(type));
  }
}

}  // namespace

float float_from_half(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  uint32_t exponent = (half >> 10) & 31u, mantissa = half & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

void transpose_rows(const char* source, int64_t rows, int64_t columns, int64_t bytes, int64_t first,
                    int64_t count, char* out) {
  switch (bytes) {
    case 2: return transpose<uint16_t>(source, rows, columns, first, count, out);
    case 4: return transpose<uint32_t>(source, rows, columns, first, count, out);
    case 8: return transpose<uint64_t>(source, rows, columns, first, count, out);
    default: fail(ErrorKind::internal, "convert: elements of {} bytes", bytes);
  }
}

void convert_elements(const char* source, ElementType type, int64_t count, char* out, DType dtype) {
  if (type == element_of(dtype)) {
    std::memcpy(out, source, static_cast<size_t>(count * element_bytes(dtype)));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const double value = element_value(source, type, i);
    if (dtype == DType::f64) {
      std::memcpy(out + i * 8, &value, 8);
    } else {
      SW_CHECK(dtype == DType::f32, internal, "convert: {} to {}", element_name(type),
               dtype_name(dtype));
      const auto narrow = static_cast<float>(value);
      std::memcpy(out + i * 4, &narrow, 4);
    }
  }
}

}  // namespace sw
