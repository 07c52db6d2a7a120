#include "libswitch/convert/target.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libswitch/base/error.h"

namespace sw {
namespace {

namespace fs = std::filesystem;

void check_parent(const fs::path& target) {
  const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  std::error_code error;
  SW_CHECK(fs::exists(parent, error), cannot_create,
           "{}: cannot create: there is no folder {}; make it first", target.string(),
           parent.string());
  SW_CHECK(::access(parent.c_str(), W_OK | X_OK) == 0, cannot_create, "{}: cannot create: {}",
           target.string(), std::strerror(errno));
}

// Links followed, as far as the path is there.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path out = fs::weakly_canonical(path, error);
  return error ? path.lexically_normal() : out;
}

bool lies_in(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

// With --force a folder goes away: only one that is a model's, never one that a slip named.
bool may_be_replaced(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder, error) &&
         (fs::is_empty(folder, error) || fs::is_regular_file(folder / "config.json", error));
}

}  // namespace

void check_file_target(const fs::path& file, bool replace) {
  std::error_code error;
  SW_CHECK(!fs::is_directory(file, error), cannot_create, "{}: is a folder; name a file in it",
           file.string());
  check_parent(file);
  SW_CHECK(replace || !fs::exists(file, error), cannot_create,
           "{}: is there already; give --force to replace it", file.string());
}

fs::path check_folder_target(fs::path folder, bool replace, const fs::path& source) {
  if (!folder.has_filename()) folder = folder.parent_path();  // "out/"
  const fs::path name = folder.filename();
  SW_CHECK(!name.empty() && name != "." && name != "..", cannot_create,
           "{}: has no name of its own under which a folder could take its place; give one",
           folder.string());
  std::error_code error;
  const bool replaces = fs::exists(fs::symlink_status(folder, error));
  if (replaces) {
    SW_CHECK(source.empty() || !fs::exists(source, error) ||
                 !lies_in(resolved(source), resolved(folder)),
             cannot_create,
             "{}: holds the source {}, and is replaced as a whole; give another name, or move the "
             "source out of it",
             folder.string(), source.string());
    SW_CHECK(replace, cannot_create, "{}: is there already; give --force to replace it",
             folder.string());
    SW_CHECK(may_be_replaced(folder), cannot_create,
             "{}: is no folder of a model and is not replaced; give another name", folder.string());
    const std::string old = folder.string() + ".old";
    SW_CHECK(!fs::exists(fs::symlink_status(old, error)), cannot_create,
             "{}: is there already, and {} is moved there before it is replaced; remove it or give "
             "it another name",
             old, folder.string());
  }
  check_parent(folder);
  const std::string temporary = folder.string() + ".tmp";
  SW_CHECK(
      !fs::exists(fs::symlink_status(temporary, error)), cannot_create,
      "{}: is there already: another conversion runs, or one was cut off; in that case remove it",
      temporary);
  return folder;
}

}  // namespace sw
