// Files that must be regular ones: to open a pipe would wait for a writer, perhaps for ever.
#pragma once

#include <filesystem>
#include <string_view>

#include "libswitch/base/file.h"

namespace sw {

/// Throws usage when `path` is a pipe, a device or a socket; `remedy` ends the message.
void require_regular_file(const std::filesystem::path& path, std::string_view remedy = "");

/// open_for_read() of what require_regular_file() lets pass.
FileDescriptor open_regular_file(const std::filesystem::path& path, std::string_view remedy = "");

}  // namespace sw
