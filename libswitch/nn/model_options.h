// The options and preset keys that define a model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "libswitch/base/options.h"
#include "libswitch/nn/config.h"

namespace sw {

/// Fields that options of a model are bound to. A preset of data/presets is a TOML file of the same
/// keys.
struct ModelOptions {
  std::string preset;
  std::string conventions = "paper";
  /// All but sparsity steps, offsets and conventions; vocab_size 0: taken from the data.
  ModelConfig config = [] {
    ModelConfig c;
    c.vocab_size = 0;
    return c;
  }();
  int64_t expert_every = 2;  // the last of every so many layers is sparse; 0: none
  std::optional<int64_t> encoder_sparse_step, encoder_sparse_offset;
  std::optional<int64_t> decoder_sparse_step, decoder_sparse_offset;
  std::optional<double> expert_dropout;  // default: config.dropout
  // Single choices of the conventions; default: as the preset of that name has them.
  std::optional<std::string> capacity_rule, group_rule, padding_rule, adafactor_expert_rms;

  /// The complete configuration, not yet validated (vocab_size may still be 0).
  ModelConfig resolve() const;
};

/// Declares them all, in the group "model".
void declare_model_options(OptionRegistry& registry, ModelOptions& options);

/// The model that a resolved configuration (a checkpoint's config_toml) describes; keys of other
/// groups are passed over. Throws usage.
ModelConfig model_config_from_toml(std::string_view toml, const std::string& name);

/// The inverse: TOML from which model_config_from_toml() makes an equal configuration. Conventions
/// must be those of the preset of their name.
std::string model_config_to_toml(const ModelConfig& config);

/// What a preset of data/presets says of the model; vocab_size stays 0 when it names none. Throws
/// usage or missing.
ModelConfig model_config_of_preset(const std::string& preset);

}  // namespace sw
