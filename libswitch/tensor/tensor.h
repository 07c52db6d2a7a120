// A contiguous row-major array with a dtype and a device. Copies share storage; `view` and `slice`
// alias it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/tensor/device.h"
#include "libswitch/tensor/dtype.h"
#include "libswitch/tensor/shape.h"

namespace sw {

class Tensor {
 public:
  /// An undefined tensor: stands for an absent optional argument.
  Tensor() = default;
  /// Uninitialised contents.
  static Tensor empty(const Shape& shape, DType dtype, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {});
  /// A CPU copy of `values`, whose count must be the shape's.
  template <class T>
  static Tensor from(const Shape& shape, std::span<const T> values);
  template <class T>
  static Tensor from(const Shape& shape, const std::vector<T>& values) {
    return from(shape, std::span<const T>(values));
  }

  bool defined() const { return storage_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t size(int dimension) const { return shape_[dimension]; }
  int64_t elements() const { return elements_; }
  int64_t bytes() const { return elements_ * element_bytes(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const;

  /// Typed pointer to the first element; throws internal when T is not the dtype.
  template <class T>
  T* data() {
    check_type(dtype_of<T>());
    return static_cast<T*>(data_);
  }
  template <class T>
  const T* data() const {
    check_type(dtype_of<T>());
    return static_cast<const T*>(data_);
  }
  void* raw() { return data_; }
  const void* raw() const { return data_; }

  /// The same elements under another shape of equal size.
  Tensor view(const Shape& shape) const;
  /// Rows [begin, end) of the first dimension; aliases.
  Tensor slice(int64_t begin, int64_t end) const;
  /// Entry i of the first dimension, rank less one; aliases.
  Tensor operator[](int64_t i) const;

  /// Whether another Tensor refers to the same storage.
  bool shared() const { return storage_.use_count() > 1; }

  /// A deep copy (CPU).
  Tensor clone() const;
  /// Contents as doubles, row-major (CPU).
  std::vector<double> to_vector() const;
  /// A converted copy (CPU; f32, bf16 and f64 among each other).
  Tensor to(DType dtype) const;

 private:
  void check_type(DType wanted) const;
  struct Storage;
  std::shared_ptr<Storage> storage_;
  void* data_ = nullptr;
  Shape shape_;
  int64_t elements_ = 0;
  DType dtype_ = DType::f32;
};

/// Throws internal "where: name: expected [..] f32, got [..] bf16" unless shape and dtype are as
/// given.
void check_tensor(const char* where, const char* name, const Tensor& tensor, const Shape& shape,
                  DType dtype);

}  // namespace sw
