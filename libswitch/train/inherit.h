// A model's options from a checkpoint that the run does not go on with, but begins with.
#pragma once

#include <functional>
#include <string>

#include "libswitch/base/options.h"
#include "libswitch/io/checkpoint_reader.h"

namespace sw {

/// Which options of the group "model" a checkpoint decides.
enum class Inherit {
  /// Sizes, sparsity and conventions: the same model. An option that was given and differs is an
  /// error. Rates and weights of losses are taken over where nobody set them.
  same_model,
  /// What a student cannot choose: vocabulary and conventions; an option that was given stands.
  vocabulary,
  /// Everything that nobody set.
  all,
};

/// Gives options of the group "model" their values in `reader`'s configuration. `keep` says, by
/// key, which stay as they are. Throws usage.
void inherit_model_options(OptionRegistry& registry, const CheckpointReader& reader, Inherit what,
                           const std::function<bool(const std::string&)>& keep = {});

}  // namespace sw
