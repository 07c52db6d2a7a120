#include "libswitch/train/inherit.h"

#include <set>
#include <string_view>

#include "libswitch/base/error.h"
#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

// What may be another in tuning than it was before: no weight's shape or meaning depends on it.
const std::set<std::string_view> kTunable = {
    "aux_loss",        "capacity_factor", "dropout",        "eval_capacity_factor",
    "expert_capacity", "expert_dropout",  "init_scale",     "input_dropout",
    "jitter",          "label_smoothing", "max_group_size", "min_capacity",
    "ntlb_k",          "output_z_loss",   "second_policy",  "second_threshold",
    "selection",       "z_loss"};

const std::set<std::string_view> kVocabulary = {"adafactor_expert_rms", "capacity_rule",
                                                "conventions",          "group_rule",
                                                "padding_rule",         "vocab_size"};

std::string text_of(const Option& option) {
  std::string text;
  for (const OptionScalar& value : option.values()) {
    text += (text.empty() ? "" : ", ") + option.to_text(value);
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

void inherit_model_options(OptionRegistry& registry, const CheckpointReader& reader, Inherit what,
                           const std::function<bool(const std::string&)>& keep) {
  const std::string file = reader.path().string();
  ModelOptions values;
  OptionRegistry there;
  declare_model_options(there, values);
  there.apply_toml(reader.meta().config_toml, file + ": /meta/config.toml", Source::file,
                   UnknownKeys::ignore);
  // Where the table's size was left to the data it is that of the table.
  if (values.config.vocab_size == 0) {
    values.config.vocab_size = reader.entry("/model/shared/embedding").shape[0];
  }
  for (const auto& option : registry.options()) {
    const std::string& key = option->key();
    const Option* was = there.find(key);
    if (was == nullptr || option->group() != "model" || (keep && keep(key))) continue;
    if (what == Inherit::vocabulary && !kVocabulary.contains(key)) continue;
    const bool given = option->origin().source != Source::fallback;
    if (!given) {
      option->assign(was->values(), Source::preset, was->origin().where);
      continue;
    }
    const std::string now = text_of(*option), before = text_of(*was);
    const bool fixed = what == Inherit::same_model && !kTunable.contains(key);
    SW_CHECK(!fixed || now == before, usage,
             "{}: {} is {}, but {} holds a model with {}; leave it out", option->origin().where,
             option->name(), now, file, before);
  }
}

}  // namespace sw
