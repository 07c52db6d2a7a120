// The norm of a step's gradients.
#pragma once

#include "libswitch/nn/model.h"

namespace sw {

/// Square root of the sum of squares of all gradients, in double: over fixed blocks of each
/// parameter (each expert by itself), then over experts in a binary tree, then over parameters in
/// order. A parameter without gradient counts as zero. On a mesh all ranks call it, dense gradients
/// summed over the data ranks: the bits are those of one rank on any data x expert mesh; the model
/// axis cuts the first sums, which agree to rounding.
double gradient_norm(const Model& model);

}  // namespace sw
