// Python's string methods. The metrics are defined by Python programs, and on text beyond ASCII
// their figures hang on what those methods do.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

/// Code points of UTF-8 text; bytes that are none read as U+FFFD.
std::u32string decode_utf8(std::string_view text);
void append_utf8(char32_t code_point, std::string& text);

/// str.isspace() of one character.
bool is_python_space(char32_t c);
/// \w of a regular expression: a letter, a digit, another number or an underscore.
bool is_word_character(char32_t c);

/// str.lower(), with its two particulars: the final sigma, and two code points for U+0130.
std::string python_lower(std::string_view text);
/// str.strip().
std::string python_strip(std::string_view text);
/// str.split(): words between runs of white space.
std::vector<std::string> python_split(std::string_view text);
/// str.split(separator) for one character: keeps empty pieces.
std::vector<std::string> split_at(std::string_view text, char separator);
/// float(): surrounding white space, a sign, underscores between digits; nothing when `text` is no
/// number, and for "nan" and "inf", of which no score can be made.
std::optional<double> python_float(std::string_view text);

}  // namespace sw
