// Where the code bases of the Switch Transformer differ, the choice is data: one record, three
// named presets.
//
// `paper`: Mesh TensorFlow, the code of Fedus et al. 2022, padding quirks included.
// `t5x`:   T5X / Flaxformer, which made the released checkpoints.
// `hf`:    Hugging Face transformers 4.52 - 4.57, for parity with converted models.
#pragma once

#include <string>
#include <vector>

#include "libswitch/moe/router.h"

namespace sw {

struct Conventions {
  std::string name = "paper";

  CapacityRule capacity = CapacityRule::floor_bounded;
  GroupRule groups = GroupRule::batch;
  PaddingRule padding = PaddingRule::counted_not_dispatched;

  /// Router losses over layers: their sum (paper), their mean (t5x), or one loss per stack over all
  /// its sparse layers together (hf).
  LossRule router_losses = LossRule::sum_layers;
  /// The fraction f counts a dropped token on expert 0 (hf), or both choices of top-2 (t5x).
  bool dropped_as_expert_0 = false;
  bool count_all_choices = false;
  /// A dropped token's layer output: zero, or its gate times the normed input (Hugging Face
  /// before 4.52).
  DroppedGate dropped_gate = DroppedGate::zero;
  /// Gates rounded to bf16 in a bf16 model (hf).
  bool bf16_gate = false;
  /// Whether jitter reaches the experts' input too (Hugging Face in float32).
  bool jitter_reaches_experts = false;
  /// Whether a stack whose every layer is sparse has router losses (hf: not).
  bool all_sparse_stack_has_losses = true;
  /// Router z-loss in evaluation too.
  bool router_z_loss_in_eval = false;

  /// Rows of padding are zeroed before every sublayer and at the end of a stack.
  bool zero_padding_rows = true;
  /// The decoder masks its own padding by segments (target id 0); otherwise only causally.
  bool mask_target_padding = true;
  /// Dropout masks of sublayer outputs and dense hidden layers are shared over the length axis;
  /// attention weight masks over queries. Expert dropout is always per element.
  bool dropout_shared_over_length = true;

  /// Denominator of the cross-entropy: all target positions, padding included (paper), or real
  /// targets.
  enum class LossMean { positions, targets } loss_mean = LossMean::positions;

  enum class InitRule { mesh, t5x, hf } init = InitRule::mesh;
  /// Adafactor's rms of an expert tensor's weight and update: over all experts, or each expert's
  /// own.
  enum class ExpertRms { all, each } adafactor_expert_rms = ExpertRms::all;
};

/// The preset of that name; usage error naming the known ones otherwise.
Conventions conventions_preset(const std::string& name);
std::vector<std::string> conventions_names();

}  // namespace sw
