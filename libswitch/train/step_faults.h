// What SW_FAULT (base/fault.h) does to the weights and numbers of a step.
#pragma once

#include "libswitch/nn/model.h"

namespace sw {

/// Before a rank's forward passes of a step: visits the site `step`, flips a weight's bit when that
/// is asked for, and tells whether the loss is to become not-a-number.
bool fault_before_forward(Model& model);
/// Before a backward pass: visits the site `backward`; a NaN goes into this rank's gradients.
void fault_before_backward(Model& model);

}  // namespace sw
