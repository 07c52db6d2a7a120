// Presets: named sets of option values, one TOML file each.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sw {

/// The folders that hold presets, in order of search: $SW_PRESETS (':' between folders), then
/// share/switch/presets beside the library (installed, or in the build tree).
std::vector<std::filesystem::path> preset_folders();

/// Whether a preset is given as a file: it holds a '/' or ends in ".toml".
bool is_preset_path(const std::string& name);

/// The names of all presets, sorted.
std::vector<std::string> preset_names();

/// The file of a preset: NAME.toml in one of preset_folders(), or `name` itself when it is
/// a path. Throws usage with the nearest name, or missing for a path that is not
/// there; `where` leads the message.
std::filesystem::path find_preset(const std::string& name, const std::string& where);

}  // namespace sw
