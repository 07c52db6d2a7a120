// What this build is: version, commit, compiler, libraries.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sw {

/// "0.1.0"
const char* version();

/// Facts of the build in order: version, commit, compiler, build type, HDF5, oneDNN, ...; a
/// library that was not used is "none".
const std::vector<std::pair<std::string, std::string>>& build_info();

}  // namespace sw
