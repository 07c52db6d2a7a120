#include "libswitch/tape/var.h"

#include "libswitch/kernels/elementwise.h"

namespace sw {

GradientSlot::Target GradientSlot::target() {
  if (!gradient_.defined()) gradient_ = Tensor::empty(shape_, dtype_, device_);
  // A tensor that was adopted may serve as somebody else's gradient too: add to a copy then.
  if (gradient_.shared())
    gradient_ = set_ ? gradient_.clone() : Tensor::empty(shape_, dtype_, device_);
  return {gradient_, std::exchange(set_, true) ? Accum::add : Accum::write};
}

void GradientSlot::adopt(const Stream& stream, Tensor gradient) {
  check_tensor("GradientSlot::adopt", "gradient", gradient, shape_, dtype_);
  if (!set_) {
    gradient_ = std::move(gradient);
    set_ = true;
  } else {
    Tensor sum = target().tensor;
    kernels::scale(stream, sum, gradient, 1.0, Accum::add);
  }
}

Tensor GradientSlot::take_unshared() {
  if (!set_ || gradient_.shared()) return {};
  set_ = false;
  return std::exchange(gradient_, Tensor());
}

const Tensor& GradientSlot::gradient() const {
  SW_CHECK(set_, internal, "gradient {}: nothing contributed to it", shape_.str());
  return gradient_;
}

Var Var::leaf(Tensor value) {
  auto slot = std::make_shared<GradientSlot>(value.shape(), value.dtype(), value.device());
  return Var(std::move(value), std::move(slot));
}

}  // namespace sw
