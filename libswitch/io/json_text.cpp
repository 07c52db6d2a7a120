#include "libswitch/io/json_text.h"

#include <set>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/regular_file.h"

namespace sw {
namespace {

using nlohmann::json;

constexpr int64_t kMaxValues = 300'000;
constexpr int kMaxDepth = 32;
constexpr uint64_t kMaxBytes = uint64_t{64} << 20;

}  // namespace

std::string shown(std::string_view name) {
  constexpr size_t kLongest = 120;
  std::string text(name.substr(0, kLongest));
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  if (name.size() > kLongest) text += "...";
  return text;
}

json parse_json(std::string_view text, const std::string& name) {
  std::vector<std::set<std::string>> keys;
  int64_t values = 0;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    SW_CHECK(depth <= kMaxDepth, corrupt, "{}: JSON of more than {} levels", name, kMaxDepth);
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      SW_CHECK(keys.back().insert(key).second, corrupt, "{}: the key \"{}\" is given twice", name,
               shown(key));
    }
    if (event == Event::value || event == Event::object_start || event == Event::array_start) {
      SW_CHECK(++values <= kMaxValues, corrupt, "{}: more than {} values", name, kMaxValues);
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::parse_error& error) {
    fail(ErrorKind::corrupt, "{}: not JSON: something is wrong at byte {}", name, error.byte);
  } catch (const json::exception& error) {
    fail(ErrorKind::corrupt, "{}: not JSON that can be read: {}", name, shown(error.what()));
  }
}

json read_json_file(const std::filesystem::path& path) {
  require_regular_file(path);
  return parse_json(read_file(path, kMaxBytes), path.string());
}

}  // namespace sw
