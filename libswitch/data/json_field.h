// One field of a JSON line.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace sw {

/// The string `field` of the JSON object that `line` holds; the last one where it is given twice.
/// Nothing else is built, so that a line of any depth and size costs no more than its text. Throws
/// corrupt, naming `place`, for what is no JSON object, and for a field that is missing or no
/// string.
std::string string_field(std::string_view line, const std::string& field,
                         const std::function<std::string()>& place);

}  // namespace sw
