// The small files of a Hugging Face folder: configuration and vocabulary. Private to convert/.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_schema.h"

namespace sw {

/// Puts the folder's vocabulary (spiece.model) into `meta`, and its small JSON files as attributes
/// "hugging_face/NAME", which model_files() gives back. A vocabulary that the toolkit cannot use
/// stays out, with a note.
void take_model_files(const std::filesystem::path& folder, int64_t vocab_size, CheckpointMeta& meta,
                      std::vector<std::string>& notes);

/// The files of a folder but for weights and config.json, by name: those that take_model_files()
/// kept, else what transformers needs to load vocabulary and generation settings.
std::map<std::string, std::string> model_files(const CheckpointMeta& meta);

/// The config.json that take_model_files() kept; null for a model that did not come from there.
nlohmann::json original_config(const CheckpointMeta& meta);

}  // namespace sw
