// A value on the tape and the place of its gradient.
#pragma once

#include <memory>
#include <utility>

#include "libswitch/kernels/kernel.h"
#include "libswitch/tensor/tensor.h"

namespace sw {

/// Where the gradient of one value gathers. The first contribution overwrites, later ones add, so
/// no gradient is ever zero-filled. Contributions come in reverse program order, which fixes the
/// order of every sum.
class GradientSlot {
 public:
  GradientSlot(const Shape& shape, DType dtype, Device device)
      : shape_(shape), dtype_(dtype), device_(device) {}

  struct Target {
    Tensor tensor;
    Accum accum;
  };
  /// The tensor to contribute to (allocated on first use) and how; the slot counts as set from then
  /// on.
  Target target();
  /// Contributes a whole tensor: shared without a copy when it is the first (it is copied before
  /// anything is added to it), else added. The caller must not write to it afterwards.
  void adopt(const Stream& stream, Tensor gradient);

  bool is_set() const { return set_; }
  /// The gradient with the right to change it in place, when nobody else refers to it; else
  /// undefined.
  Tensor take_unshared();
  /// The gradient; throws internal when nothing contributed.
  const Tensor& gradient() const;
  /// Forgets the gradient and gives its memory back, for the activations of the next pass.
  void clear() {
    set_ = false;
    gradient_ = Tensor();
  }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }

 private:
  Shape shape_;
  DType dtype_;
  Device device_;
  Tensor gradient_;
  bool set_ = false;
};
using GradientSlotPtr = std::shared_ptr<GradientSlot>;

/// A tensor with an optional gradient slot: absent for constants and when nothing is recorded.
class Var {
 public:
  Var() = default;
  /// A constant.
  explicit Var(Tensor value) : value_(std::move(value)) {}
  Var(Tensor value, GradientSlotPtr slot) : value_(std::move(value)), slot_(std::move(slot)) {}
  /// A value that wants its gradient, in its own dtype.
  static Var leaf(Tensor value);

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  Tensor& value() { return value_; }
  const GradientSlotPtr& slot() const { return slot_; }
  bool needs_gradient() const { return slot_ != nullptr; }
  const Shape& shape() const { return value_.shape(); }

 private:
  Tensor value_;
  GradientSlotPtr slot_;
};

}  // namespace sw
