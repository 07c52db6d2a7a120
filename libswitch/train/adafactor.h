// Adafactor over the parameters of a model on any mesh (Shazeer & Stern 2018). Private to train/.
//
// A parameter that a rank holds whole takes one fused step. Where it is cut, the step goes in
// stages (kernels/optimizer.h), all such parameters side by side, so that each stage costs one
// collective: sums by row and column, the mean of the row moments and the squares are summed over
// the model axis; squares of experts, when one rms is taken over all of them, are gathered over the
// expert axis and summed in the order in which one rank would.
#pragma once

#include "libswitch/kernels/optimizer.h"
#include "libswitch/train/optimizer.h"

namespace sw {

std::unique_ptr<Optimizer> make_adafactor(const OptimizerConfig& config, Model& model);

/// The gradient of a parameter; zeros where nothing contributed.
const Tensor& gradient_or_zeros(Parameter& parameter);

/// One parameter's step on the part held here. Tensors may be views; `batch` entries first.
struct AdafactorTensors {
  Tensor weight, value, gradient;
  Tensor row_moment, column_moment;  // factored
  Tensor moment;                     // not factored
  /// Σw² by entry, kept from one step to the next (undefined: not kept), and whether it holds.
  Tensor weight_squares;
  bool squares_known = false;
};

/// Along which dimension of its view a parameter is cut over an axis of the mesh.
enum class AdafactorCut { none, batch, rows, columns };

struct AdafactorWork {
  AdafactorTensors tensors;
  AdafactorView view;                             // of the whole
  AdafactorCut over_expert = AdafactorCut::none;  // none or batch; rows in adafactor_permuted
  AdafactorCut over_model = AdafactorCut::none;
  /// Whether any stage needs other ranks.
  bool staged() const {
    return over_model != AdafactorCut::none || (over_expert != AdafactorCut::none && view.one_rms);
  }
};

/// The fused step of a parameter that needs no other rank.
void adafactor_fused(AdafactorWork& work, const kernels::AdafactorParams& params);
/// The steps of parameters that do, together. All ranks of the expert and the model group call it
/// with parts of the same parameters, in the same order.
void adafactor_staged(std::vector<AdafactorWork>& works, const Mesh& mesh,
                      const kernels::AdafactorParams& params);

/// The step of a parameter whose expert dimension is factored. Its tensors are transposed for it:
/// experts outnumber the model's width, which is rare and small. Where experts are cut, each rank
/// of the expert group takes some of the matrices of all experts: weights, gradients and row
/// moments go there and back. All ranks of the expert and the model group call it.
void adafactor_permuted(AdafactorWork& work, Parameter& parameter, const Mesh& mesh,
                        const kernels::AdafactorParams& params);
/// Throws usage when the matrices of such a parameter do not divide among the ranks.
void check_adafactor_permuted(const AdafactorWork& work, const Parameter& parameter,
                              const Mesh& mesh);

}  // namespace sw
