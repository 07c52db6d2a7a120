// The spelling of text that the T5 authors gave SQuAD: a space round every punctuation mark.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace sw {

/// Runs of ASCII white space (but vertical tabs) become one space each.
std::string collapse_spaces(std::string_view text);
/// Puts a space before and after every ASCII punctuation mark, then collapses spaces.
std::string pad_punctuation(std::string_view text);
/// Whether most of the answers that have punctuation have it with spaces round it; true when none
/// has any.
bool are_padded(std::span<const std::string> answers);

}  // namespace sw
