// Named tensors in files of other programs.
//
//   const auto archive = open_weights("t5-base");        // weights_folder.h
//   for (size_t i = 0; i < archive->tensors().size(); ++i) archive->read_rows(i, begin, end, out);
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libswitch/tensor/dtype.h"
#include "libswitch/tensor/shape.h"

namespace sw {

/// Element types by safetensors' names, in its order (which sorts the tensors of a file).
enum class ElementType : uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};
/// "F32", "BF16", ...
std::string_view element_name(ElementType type);
int64_t element_bits(ElementType type);
/// False when safetensors has no such type.
bool element_from_name(std::string_view name, ElementType& type);
/// That of a dtype of ours, and ours that holds a type's values exactly (f32 for F16); false where
/// there is none.
ElementType element_of(DType dtype);
bool dtype_for(ElementType type, DType& dtype);

struct ArchiveTensor {
  std::string name;
  ElementType type = ElementType::f32;
  Shape shape;
  /// Tensors of one file that are the same memory have the same number.
  uint64_t identity = 0;
  int64_t rows() const { return shape.rank() == 0 ? 1 : shape[0]; }
  int64_t bytes() const { return (shape.elements() * element_bits(type) + 7) / 8; }
};

/// Product of the sizes times an element's bits, or -1 when that is no whole number of bytes below
/// 2^62.
int64_t checked_bytes(const Shape& shape, ElementType type);

class TensorArchive {
 public:
  virtual ~TensorArchive() = default;
  /// Sorted by name, no name twice.
  const std::vector<ArchiveTensor>& tensors() const { return tensors_; }
  /// Index of a tensor, or -1.
  int64_t find(std::string_view name) const;
  /// Rows [begin, end) of the first dimension (a scalar is one row), dense and row-major, in the
  /// file's own type. Throws corrupt or io, naming file and tensor.
  virtual void read_rows(size_t tensor, int64_t begin, int64_t end, void* out) const = 0;
  /// The file that a tensor lies in, for messages.
  virtual std::string file_of(size_t tensor) const = 0;

 protected:
  std::vector<ArchiveTensor> tensors_;
};

}  // namespace sw
