#include "libswitch/io/tensor_archive.h"

#include <algorithm>
#include <array>

#include "libswitch/base/error.h"

namespace sw {
namespace {

struct ElementRow {
  std::string_view name;
  int bits;
};
// In the order of ElementType.
constexpr std::array<ElementRow, 22> kElements = {{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};

}  // namespace

std::string_view element_name(ElementType type) {
  return kElements[static_cast<size_t>(type)].name;
}

int64_t element_bits(ElementType type) { return kElements[static_cast<size_t>(type)].bits; }

bool element_from_name(std::string_view name, ElementType& type) {
  for (size_t i = 0; i < kElements.size(); ++i) {
    if (kElements[i].name != name) continue;
    type = static_cast<ElementType>(i);
    return true;
  }
  return false;
}

ElementType element_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return ElementType::f32;
    case DType::bf16: return ElementType::bf16;
    case DType::f64: return ElementType::f64;
    case DType::i32: return ElementType::i32;
    case DType::u8: return ElementType::u8;
  }
  return ElementType::f32;
}

bool dtype_for(ElementType type, DType& dtype) {
  switch (type) {
    case ElementType::f16:
    case ElementType::f32: dtype = DType::f32; return true;
    case ElementType::bf16: dtype = DType::bf16; return true;
    case ElementType::f64: dtype = DType::f64; return true;
    default: return false;
  }
}

int64_t checked_bytes(const Shape& shape, ElementType type) {
  int64_t bits = element_bits(type);
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bits, size, &bits)) return -1;
  }
  return bits % 8 == 0 ? bits / 8 : -1;
}

int64_t TensorArchive::find(std::string_view name) const {
  const auto at = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const ArchiveTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at != tensors_.end() && at->name == name ? at - tensors_.begin() : -1;
}

}  // namespace sw
