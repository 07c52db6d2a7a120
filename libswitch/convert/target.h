// Where a conversion may write: looked at before anything is read or written.
#pragma once

#include <filesystem>

namespace sw {

/// Throws cannot_create unless a conversion can write the checkpoint `file`: its folder is there
/// and writable, and nothing lies at `file`, or `replace` and no folder. A link is replaced, what
/// it leads to stays.
void check_file_target(const std::filesystem::path& file, bool replace);

/// Throws cannot_create unless a conversion from the checkpoint `source` (empty: from none that has
/// a name) can write the folder `folder`: as above, and what `replace` removes is empty or a
/// model's and does not hold the source; neither `folder`.tmp nor, when something is replaced,
/// `folder`.old is there. Returns `folder` without a slash at its end.
std::filesystem::path check_folder_target(std::filesystem::path folder, bool replace,
                                          const std::filesystem::path& source);

}  // namespace sw
