// Folders that the user names.
#pragma once

#include <filesystem>

namespace sw {

/// Throws missing unless `path` is a folder, and says whether nothing or something else is there.
void check_folder(const std::filesystem::path& path);

}  // namespace sw
