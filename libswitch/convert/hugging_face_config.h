// config.json of Hugging Face's SwitchTransformers and T5: read as the library reads it, keys that
// are absent or overridden by others included, and written so that every release loads it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "libswitch/io/name_map.h"
#include "libswitch/nn/config.h"

namespace sw {

struct HuggingFaceConfig {
  HfFamily family = HfFamily::switch_transformers;
  /// With the conventions `hf` (transformers 4.52 - 4.57). Steps and counts of layers are as the
  /// file has them, not yet held against the tensors.
  ModelConfig model;
  /// Whether the logits are scaled by d_model^-1/2: with tied embeddings, unless T5's
  /// scale_decoder_outputs (transformers 5) says otherwise.
  bool scaled_logits = true;
  bool scaling_is_named = false;         // that key is there
  std::string router_dtype = "float32";  // of routers in transformers; ours are always float32
};

/// Reads a parsed config.json; `name` stands in messages. Throws corrupt, naming the key, for
/// another model type, a value of the wrong type or out of bounds, and an activation that the model
/// has not.
HuggingFaceConfig read_hugging_face_config(const nlohmann::json& json, const std::string& name);

/// config.json for a model. `original`, if an object, is one that was read: its keys stay, and
/// values are replaced where they say something else than `model`. `dtype` is "float32",
/// "bfloat16". Throws usage for what config.json cannot say, such as sparse layers at other places
/// than i mod step == 1.
nlohmann::json write_hugging_face_config(const ModelConfig& model, HfFamily family,
                                         const nlohmann::json& original, const std::string& dtype);

}  // namespace sw
