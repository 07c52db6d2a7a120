// JSON as the files of tasks have it, and what messages say of it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace sw {

struct JsonFault {
  size_t byte = 0;  // from 1
  std::string what;
};

/// The document in `text`; a discarded value, and what is wrong with the text in `fault`, where it
/// is none. `watch` sees it come, as nlohmann::json::parse has it.
nlohmann::json parse_json(const std::string& text, JsonFault& fault,
                          const nlohmann::json::parser_callback_t& watch = nullptr);
/// Ends of lines before `fault`.
int64_t lines_before(const std::string& text, const JsonFault& fault);

/// A value as a message shows it, in a few words.
std::string shown_json(const nlohmann::json& value);

/// Whether a line holds nothing but white space.
bool is_blank(std::string_view text);

}  // namespace sw
