// JSON of strangers: configuration files and indexes of weights.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace sw {

/// A name out of a foreign file for a message: at most 120 characters, all of printable ASCII.
std::string shown(std::string_view name);

/// Strict JSON of at most 300,000 values, 32 levels deep, no key of an object twice. Throws
/// corrupt, beginning with `name`.
nlohmann::json parse_json(std::string_view text, const std::string& name);

/// A JSON file of at most 64 MiB. Throws missing, io or corrupt.
nlohmann::json read_json_file(const std::filesystem::path& path);

}  // namespace sw
