// One declaration per op, and from it every check an op must pass: gradients against finite
// differences in double, fp32 and bf16 against double, a second use adding to the first, and equal
// bits when it is recomputed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libswitch/tape/context.h"

namespace sw::test {

struct OpInput {
  Shape shape;
  bool master = false;        // enters in master precision: norm scales, router weights, gates
  bool weight = false;        // a parameter: its gradient is in master precision
  double low = -1, high = 1;  // uniform draws
};

struct OpCase {
  std::string name;
  std::vector<OpInput> inputs;
  /// Builds the op; returns the outputs whose weighted sum is the loss. `context.compute` is the
  /// dtype under test.
  std::function<std::vector<Var>(Context&, const std::vector<Var>&)> run;
  int64_t terms = 1;  // length of the longest sum in an output
  double scale = 1;   // magnitude of its terms
  double spread = 8;  // what bf16 intermediates may add: units in the last place of bf16
};

/// Runs all checks; failures name the case, the dtype and the element.
void check_op(const OpCase& op);

}  // namespace sw::test
