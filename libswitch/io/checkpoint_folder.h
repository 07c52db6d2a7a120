// The checkpoints of a run folder: names, the newest good one, retention, the links `latest` and
// `best`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace sw {

/// "step-000001000.h5".
std::string checkpoint_file_name(int64_t step);

struct CheckpointFile {
  std::filesystem::path path;
  int64_t step = 0;
};

/// Files named step-<digits>.h5 in `folder`/checkpoints if that exists, else in `folder`; newest
/// (highest step) first. Their content is not looked at. Throws missing when there is no folder.
std::vector<CheckpointFile> list_checkpoints(const std::filesystem::path& folder);

/// "" for a complete file whose seal holds (metadata undamaged, length right; tensors not read),
/// else what is wrong with it.
std::string checkpoint_fault(const std::filesystem::path& file);

/// The file that `path` stands for: itself, or for a folder the target of its `latest` link, or,
/// when that is absent or damaged, the newest step-*.h5 that is whole (a damaged one is passed over
/// with a warning). Throws missing when there is none.
std::filesystem::path resolve_checkpoint(const std::filesystem::path& path);

/// Points `run_folder`/`name` (latest, best) at `file` by a relative link that is replaced
/// atomically.
void set_checkpoint_link(const std::filesystem::path& run_folder, const std::string& name,
                         const std::filesystem::path& file);

/// Keeps the `n` newest whole checkpoints of list_checkpoints(folder) and removes what is older;
/// never the newest whole one nor the targets of `latest` and `best`. n >= 1. Returns what was
/// removed.
std::vector<std::filesystem::path> keep_last(const std::filesystem::path& folder, int64_t n);

/// Removes step-*.h5.tmp that a killed save left behind. To be called when no save is under way.
std::vector<std::filesystem::path> remove_temporaries(const std::filesystem::path& folder);

}  // namespace sw
