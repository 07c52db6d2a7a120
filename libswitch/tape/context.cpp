#include "libswitch/tape/context.h"

namespace sw {

Var Context::output(Tensor value, std::initializer_list<const Var*> inputs) const {
  if (tape != nullptr) {
    for (const Var* input : inputs) {
      if (input->needs_gradient()) {
        auto slot = std::make_shared<GradientSlot>(value.shape(), value.dtype(), value.device());
        return Var(std::move(value), std::move(slot));
      }
    }
  }
  return Var(std::move(value));
}

}  // namespace sw
