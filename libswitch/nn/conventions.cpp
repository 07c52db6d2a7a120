#include "libswitch/nn/conventions.h"

#include "libswitch/base/error.h"

namespace sw {

std::vector<std::string> conventions_names() { return {"paper", "t5x", "hf"}; }

Conventions conventions_preset(const std::string& name) {
  Conventions c;
  c.name = name;
  if (name == "paper") return c;
  if (name == "t5x") {
    c.capacity = CapacityRule::round_half_even;
    c.padding = PaddingRule::excluded;
    c.router_losses = LossRule::mean_layers;
    c.count_all_choices = true;
    c.loss_mean = Conventions::LossMean::targets;
    c.init = Conventions::InitRule::t5x;
    c.adafactor_expert_rms = Conventions::ExpertRms::each;
    return c;
  }
  if (name == "hf") {
    c.capacity = CapacityRule::constant;
    c.groups = GroupRule::row;
    c.padding = PaddingRule::routed;
    c.router_losses = LossRule::concat_layers;
    c.dropped_as_expert_0 = true;
    c.bf16_gate = true;
    c.all_sparse_stack_has_losses = false;
    c.router_z_loss_in_eval = true;
    c.zero_padding_rows = false;
    c.mask_target_padding = false;
    c.dropout_shared_over_length = false;
    c.loss_mean = Conventions::LossMean::targets;
    c.init = Conventions::InitRule::hf;
    c.adafactor_expert_rms = Conventions::ExpertRms::each;
    return c;
  }
  fail(ErrorKind::usage, "conventions: unknown preset '{}', expected paper, t5x or hf{}", name,
       nearest_hint(name, conventions_names()));
}

}  // namespace sw
