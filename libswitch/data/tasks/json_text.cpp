#include "libswitch/data/tasks/json_text.h"

#include <algorithm>

namespace sw {

using nlohmann::json;

json parse_json(const std::string& text, JsonFault& fault, const json::parser_callback_t& watch) {
  try {
    return json::parse(text, watch);
  } catch (const json::exception& error) {
    // The message opens with its own error number; what follows says what was expected.
    fault.what = error.what();
    if (const size_t colon = fault.what.find(": "); colon != std::string::npos) {
      fault.what.erase(0, colon + 2);
    }
    if (fault.what.size() > 200) fault.what.resize(200);
    fault.byte = text.size();
    if (const auto* parse = dynamic_cast<const json::parse_error*>(&error)) {
      fault.byte = parse->byte;
    }
    return json(json::value_t::discarded);
  }
}

int64_t lines_before(const std::string& text, const JsonFault& fault) {
  const size_t end = std::min(fault.byte > 0 ? fault.byte - 1 : 0, text.size());
  return std::count(text.begin(), text.begin() + static_cast<int64_t>(end), '\n');
}

std::string shown_json(const json& value) {
  std::string text = value.is_structured()
                         ? std::string(value.is_array() ? "a list" : "an object")
                         : value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60) text = "a text of " + std::to_string(text.size() - 2) + " bytes";
  return text;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == text.npos; }

}  // namespace sw
