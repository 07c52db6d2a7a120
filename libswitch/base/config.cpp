#include "libswitch/base/config.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <set>
#include <string_view>
#include <system_error>

#include "libswitch/base/error.h"

namespace sw {
namespace {

// The file this code was loaded from: libswitch.so, or the program when linked statically.
std::filesystem::path own_file() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&preset_folders), &info) == 0 || info.dli_fname == nullptr) {
    return {};
  }
  std::error_code error;
  const auto path = std::filesystem::canonical(info.dli_fname, error);
  return error ? std::filesystem::path() : path;
}

}  // namespace

bool is_preset_path(const std::string& name) {
  return name.find('/') != std::string::npos || name.ends_with(".toml");
}

std::vector<std::filesystem::path> preset_folders() {
  std::vector<std::filesystem::path> folders;
  if (const char* list = std::getenv("SW_PRESETS")) {
    std::string_view rest(list);
    while (!rest.empty()) {
      const size_t colon = std::min(rest.find(':'), rest.size());
      if (colon > 0) folders.emplace_back(rest.substr(0, colon));
      rest.remove_prefix(std::min(colon + 1, rest.size()));
    }
  }
  // lib/libswitch.so, lib/x86_64-linux-gnu/libswitch.so
  const std::filesystem::path folder = own_file().parent_path();
  if (!folder.empty()) {
    folders.push_back(folder.parent_path() / "share/switch/presets");
    folders.push_back(folder.parent_path().parent_path() / "share/switch/presets");
  }
  return folders;
}

std::vector<std::string> preset_names() {
  std::set<std::string> names;
  for (const auto& folder : preset_folders()) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
      if (entry.path().extension() == ".toml") names.insert(entry.path().stem().string());
    }
  }
  return {names.begin(), names.end()};
}

std::filesystem::path find_preset(const std::string& name, const std::string& where) {
  std::error_code error;
  if (is_preset_path(name)) {
    if (std::filesystem::is_regular_file(name, error)) return name;
    fail(ErrorKind::missing, "{}: there is no preset file {}{}", where, name,
         std::filesystem::is_directory(name, error) ? ", only a folder" : "");
  }
  for (const auto& folder : preset_folders()) {
    const auto path = folder / (name + ".toml");
    if (std::filesystem::is_regular_file(path, error)) return path;
  }
  const std::vector<std::string> names = preset_names();
  if (names.empty()) {
    std::string searched;
    for (const auto& folder : preset_folders()) searched += " " + folder.string();
    fail(ErrorKind::missing, "{}: no preset '{}': no presets in{}; set SW_PRESETS to their folder",
         where, name, searched);
  }
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  std::string hint = nearest_hint(lower, names);
  if (hint.empty()) {
    hint = "; there are";
    for (const std::string& known : names) hint += (&known == &names[0] ? " " : ", ") + known;
  }
  fail(ErrorKind::usage, "{}: no preset '{}'{}", where, name, hint);
}

}  // namespace sw
