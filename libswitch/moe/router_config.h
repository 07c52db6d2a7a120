// The settings of a router, and where the public implementations differ.
//
// Sources: Fedus et al. 2022 with its released code (Mesh TensorFlow transformer/moe.py, "mesh"),
// flaxformer architectures/moe/routing.py ("flaxformer"), and Hugging Face
// SwitchTransformersTop1Router ("hf").
#pragma once

#include <cstdint>
#include <string>

namespace sw {

enum class RouterKind {
  switch_top1,  // "switch": the most probable expert, gate = its probability
  top2,         // "top2": GShard, gates of two experts normalised to sum 1
  ntlb,         // "ntlb": no token left behind, up to ntlb_k rounds, one expert a token
};

enum class CapacityRule {
  floor_bounded,    // mesh: max(min(T, floor(T·factor/E)), min_capacity)
  round_half_even,  // flaxformer: max(round(factor·T/E), min_capacity), halves to even
  constant,         // hf: expert_capacity, in training and evaluation
  unlimited,        // nothing is dropped: T, so that a token's result does not depend on its group
};

enum class GroupRule {
  batch,  // groups of up to max_group_size over the flattened shard (split_into_groups)
  row,    // hf: every batch row is a group
};

enum class PaddingRule {
  counted_not_dispatched,  // mesh: takes no slot; switch and ntlb count it in f and P and scale the
                           // group's loss by its share of real tokens, top2 leaves it out
  excluded,                // flaxformer: takes no slot, left out of f, P and z
  routed,                  // hf: like any token
};

/// How the expert is taken from the probabilities (switch only; jitter and dropout of the router's
/// input happen before).
enum class SelectionPolicy {
  argmax,  // ties: lowest index
  sample,  // drawn from softmax(logits / temperature), also in evaluation; the gate is the
           // untempered probability
};

/// When the second expert of top2 is used; g2 is its normalised gate.
enum class SecondPolicy {
  all,
  none,
  threshold,  // g2 > second_threshold
  random,     // with probability min(1, g2 / second_threshold)
};

/// What a dropped token's gate holds (switch only).
enum class DroppedGate {
  zero,  // its layer output is 0
  kept,  // the expert's probability, by which hf before 4.52 scaled the token's own input
};

struct RouterConfig {
  RouterKind kind = RouterKind::switch_top1;
  int64_t experts = 0;  // E

  CapacityRule capacity_rule = CapacityRule::floor_bounded;
  double capacity_factor_train = 1.25;
  double capacity_factor_eval = 2.0;
  int64_t min_capacity = 4;
  int64_t expert_capacity = 64;  // of CapacityRule::constant; 0 drops every token

  GroupRule group_rule = GroupRule::batch;
  int64_t max_group_size = 1024;
  PaddingRule padding_rule = PaddingRule::counted_not_dispatched;

  SelectionPolicy selection = SelectionPolicy::argmax;
  double temperature = 1.0;  // of SelectionPolicy::sample
  DroppedGate dropped_gate = DroppedGate::zero;
  bool bf16_gate = false;  // hf in a bf16 model: choose by and scale with probabilities rounded to
                           // bf16 (switch only)
  SecondPolicy second_train = SecondPolicy::random;
  SecondPolicy second_eval = SecondPolicy::random;
  double second_threshold = 0.2;
  int64_t ntlb_k = 4;

  bool count_all_choices = false;    // top2: f counts both choices (flaxformer), else the first
                                     // only (mesh)
  bool dropped_as_expert_0 = false;  // hf 4.52 - 4.57: f counts a dropped token on expert 0

  /// The settings of the convention presets "paper" (all defaults), "t5x" and "hf"; experts, group
  /// size and capacity numbers stay to be set. Throws usage for another name.
  static RouterConfig preset(const std::string& name);
};

/// The names used in configuration files and checkpoints, and back; an unknown name is a usage
/// error that lists what there is.
const char* router_kind_name(RouterKind kind);
RouterKind router_kind_from(const std::string& name);
const char* capacity_rule_name(CapacityRule rule);
CapacityRule capacity_rule_from(const std::string& name);
const char* group_rule_name(GroupRule rule);
GroupRule group_rule_from(const std::string& name);
const char* padding_rule_name(PaddingRule rule);
PaddingRule padding_rule_from(const std::string& name);
const char* selection_policy_name(SelectionPolicy policy);
SelectionPolicy selection_policy_from(const std::string& name);
const char* second_policy_name(SecondPolicy policy);
SecondPolicy second_policy_from(const std::string& name);

/// Throws usage for a configuration out of range: experts < 1, a factor, threshold or temperature
/// that is not positive and finite, ntlb_k outside [1, experts], a setting that the kind lacks.
void check_router_config(const RouterConfig& config);

}  // namespace sw
