#include "libswitch/base/folder.h"

#include "libswitch/base/error.h"

namespace sw {

void check_folder(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return;
  const bool there = std::filesystem::exists(path, error);
  fail(ErrorKind::missing, "{}: {}", path.string(),
       there ? "is a file, expected a folder" : "no such folder");
}

}  // namespace sw
