#include "libswitch/base/regular_file.h"

#include "libswitch/base/error.h"

namespace sw {

void require_regular_file(const std::filesystem::path& path, std::string_view remedy) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  SW_CHECK(!fs::exists(status) || fs::is_regular_file(status) || fs::is_directory(status), usage,
           "{}: not a regular file{}", path.string(), remedy);
}

FileDescriptor open_regular_file(const std::filesystem::path& path, std::string_view remedy) {
  require_regular_file(path, remedy);
  return open_for_read(path);
}

}  // namespace sw
