// Kinds of tokens that experts are known to specialise in (after the table of Zoph et al. 2022,
// section 7): told from the token's piece alone.
#pragma once

#include <array>
#include <string_view>

namespace sw {

enum class TokenClass {
  sentinel,       // <extra_id_0>, ...
  special,        // pad (which starts the decoder), end, unknown
  punctuation,    // no letter and no digit
  number,         // a digit, no letter
  function_word,  // an English article, pronoun, preposition, conjunction, auxiliary
  capitalised,    // begins a word with a capital
  word,           // begins a word otherwise
  part,           // goes on with a word
};
inline constexpr int kTokenClasses = 8;

/// "sentinels", "start and end", "punctuation", ...
std::string_view token_class_name(TokenClass kind);

/// Of the piece of id `id`, with spaces as U+2581.
TokenClass token_class(std::string_view piece, int64_t id);

}  // namespace sw
