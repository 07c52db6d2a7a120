#include "libswitch/train/step_faults.h"

#include <cstring>
#include <limits>

#include "libswitch/base/fault.h"

namespace sw {
namespace {

// One bit of the mantissa of one element in the middle.
void flip_bit(Parameter& parameter) {
  Tensor& weight = parameter.master();
  char* element =
      static_cast<char*>(weight.raw()) + weight.elements() / 2 * element_bytes(weight.dtype());
  *element = static_cast<char>(*element ^ 0x10);
  parameter.refresh(Stream{weight.device()});
}

void poison(GradientSlot& slot) {
  const GradientSlot::Target target = slot.target();
  Tensor gradient = target.tensor;
  if (target.accum == Accum::write) {
    std::memset(gradient.raw(), 0, static_cast<size_t>(gradient.bytes()));
  }
  gradient.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
}

}  // namespace

bool fault_before_forward(Model& model) {
  const FaultEffect effect = fault_at(FaultSite::step);
  // A parameter that every data rank holds.
  if (effect == FaultEffect::bitflip_weight) flip_bit(*model.parameters().front());
  return effect == FaultEffect::nan;
}

void fault_before_backward(Model& model) {
  if (fault_at(FaultSite::backward) != FaultEffect::nan) return;
  poison(model.parameters().back()->gradient());
}

}  // namespace sw
