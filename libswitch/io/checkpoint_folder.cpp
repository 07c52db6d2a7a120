#include "libswitch/io/checkpoint_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/folder.h"
#include "libswitch/base/log.h"
#include "libswitch/io/checkpoint_reader.h"

namespace sw {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "step-", kSuffix = ".h5";

std::optional<int64_t> step_of(const std::string& name, std::string_view suffix) {
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix)) return std::nullopt;
  const char* first = name.data() + kPrefix.size();
  const char* last = name.data() + name.size() - suffix.size();
  if (first >= last || *first < '0' || *first > '9') return std::nullopt;
  int64_t step = 0;
  const auto [end, error] = std::from_chars(first, last, step);
  if (end != last || error != std::errc()) return std::nullopt;
  return step;
}

fs::path checkpoints_folder(const fs::path& folder) {
  std::error_code error;
  const fs::path inner = folder / "checkpoints";
  return fs::is_directory(inner, error) ? inner : folder;
}

std::vector<CheckpointFile> list_files(const fs::path& folder, std::string_view suffix) {
  std::error_code error;
  check_folder(folder);
  std::vector<CheckpointFile> files;
  const fs::path inside = checkpoints_folder(folder);
  for (fs::directory_iterator at(inside, error), end; !error && at != end; at.increment(error)) {
    if (const auto step = step_of(at->path().filename().string(), suffix)) {
      files.push_back({at->path(), *step});
    }
  }
  SW_CHECK(!error, io, "{}: cannot list: {}", inside.string(), error.message());
  std::sort(files.begin(), files.end(), [](const CheckpointFile& a, const CheckpointFile& b) {
    return a.step != b.step ? a.step > b.step : a.path < b.path;
  });
  return files;
}

// The file that `folder`/`name` points at, or none.
std::optional<fs::path> link_target(const fs::path& folder, const char* name) {
  std::error_code error;
  const fs::path link = folder / name;
  if (!fs::is_symlink(link, error)) return std::nullopt;
  const fs::path target = fs::read_symlink(link, error);
  if (error || target.empty()) return std::nullopt;
  return target.is_absolute() ? target : (folder / target).lexically_normal();
}

void remove_file(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  SW_CHECK(!error, io, "{}: cannot remove: {}", path.string(), error.message());
}

}  // namespace

std::string checkpoint_file_name(int64_t step) { return fmt::format("step-{:09}.h5", step); }

std::vector<CheckpointFile> list_checkpoints(const fs::path& folder) {
  return list_files(folder, kSuffix);
}

std::string checkpoint_fault(const fs::path& file) {
  try {
    CheckpointReader reader(file);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

fs::path resolve_checkpoint(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return path;
  if (const auto target = link_target(path, "latest")) {
    const std::string fault = checkpoint_fault(*target);
    if (fault.empty()) return *target;
    log::warn("{}: passed over: {}", (path / "latest").string(), fault);
  }
  for (const CheckpointFile& file : list_checkpoints(path)) {
    const std::string fault = checkpoint_fault(file.path);
    if (fault.empty()) return file.path;
    log::warn("passed over: {}", fault);
  }
  SW_CHECK(!fs::exists(path / "config.json", error), missing,
           "{}: a folder of Hugging Face, expected a checkpoint; make one of it: sw-convert {} "
           "MODEL.h5",
           path.string(), path.string());
  fail(ErrorKind::missing, "{}: no whole checkpoint (step-*.h5) in this folder", path.string());
}

void set_checkpoint_link(const fs::path& run_folder, const std::string& name,
                         const fs::path& file) {
  const fs::path link = run_folder / name;
  const fs::path temporary = run_folder / (name + ".tmp");
  std::error_code error;
  const fs::path target = fs::relative(file, run_folder, error);
  SW_CHECK(!error && !target.empty(), io, "{}: cannot be reached from {}: {}", file.string(),
           run_folder.string(), error.message());
  fs::remove(temporary, error);
  fs::create_symlink(target, temporary, error);
  SW_CHECK(!error, io, "{}: cannot create the link: {}", temporary.string(), error.message());
  fs::rename(temporary, link, error);
  if (error) {
    const std::string why = error.message();
    fs::remove(temporary, error);
    fail(ErrorKind::io, "{}: cannot replace the link: {}", link.string(), why);
  }
  fsync_path(run_folder);
}

std::vector<fs::path> keep_last(const fs::path& folder, int64_t n) {
  SW_CHECK(n >= 1, usage, "keep last: expected at least 1 checkpoint, got {}", n);
  std::vector<fs::path> removed;
  const auto latest = link_target(folder, "latest"), best = link_target(folder, "best");
  int64_t whole = 0;
  // Damaged files count for nothing: only behind n whole ones is anything removed.
  for (const CheckpointFile& file : list_checkpoints(folder)) {
    if (whole < n) {
      whole += checkpoint_fault(file.path).empty();
      continue;
    }
    std::error_code error;
    if (latest && fs::equivalent(*latest, file.path, error)) continue;
    if (best && fs::equivalent(*best, file.path, error)) continue;
    remove_file(file.path);
    removed.push_back(file.path);
  }
  if (!removed.empty()) fsync_path(checkpoints_folder(folder));
  return removed;
}

std::vector<fs::path> remove_temporaries(const fs::path& folder) {
  std::vector<fs::path> removed;
  for (const CheckpointFile& file : list_files(folder, ".h5.tmp")) {
    remove_file(file.path);
    removed.push_back(file.path);
  }
  return removed;
}

}  // namespace sw
