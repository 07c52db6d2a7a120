#include "libswitch/report/token_classes.h"

#include <algorithm>
#include <cstdint>
#include <string>

namespace sw {
namespace {

// Sorted.
constexpr std::string_view kFunctionWords[] = {
    "a",       "about",  "after",  "against", "all",   "am",    "among",  "an",      "and",
    "any",     "are",    "as",     "at",      "be",    "been",  "before", "being",   "between",
    "both",    "but",    "by",     "can",     "could", "did",   "do",     "does",    "during",
    "each",    "either", "every",  "for",     "from",  "had",   "has",    "have",    "he",
    "her",     "him",    "his",    "how",     "i",     "if",    "in",     "into",    "is",
    "it",      "its",    "may",    "me",      "might", "must",  "my",     "neither", "no",
    "nor",     "not",    "of",     "off",     "on",    "or",    "our",    "out",     "over",
    "shall",   "she",    "should", "since",   "so",    "some",  "such",   "than",    "that",
    "the",     "their",  "them",   "then",    "these", "they",  "this",   "those",   "though",
    "through", "to",     "under",  "until",   "up",    "upon",  "us",     "was",     "we",
    "were",    "what",   "when",   "where",   "which", "while", "who",    "whom",    "whose",
    "will",    "with",   "would",  "yet",     "you",   "your",
};

constexpr std::string_view kSpace = "\u2581";

// The code point at the front of UTF-8 text; 0xfffd where it is none.
char32_t take_character(std::string_view& text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  char32_t c = first < 0x80 ? first : first & (0xffU >> (length + 1));
  if (length > text.size() || (first & 0xc0) == 0x80) {
    text.remove_prefix(1);
    return 0xfffd;
  }
  for (size_t i = 1; i < length; ++i) c = c << 6 | (static_cast<unsigned char>(text[i]) & 0x3fU);
  text.remove_prefix(length);
  return c;
}

bool is_digit(char32_t c) { return c >= U'0' && c <= U'9'; }
bool is_capital(char32_t c) {
  return (c >= U'A' && c <= U'Z') || (c >= 0xc0 && c <= 0xde && c != 0xd7) ||
         (c >= 0x391 && c <= 0x3a9) || (c >= 0x410 && c <= 0x42f);
}
// Outside of ASCII and Latin-1, all but general, mathematical and CJK punctuation counts as letter.
bool is_letter(char32_t c) {
  if (c < 0x80) return (c >= U'A' && c <= U'Z') || (c >= U'a' && c <= U'z');
  if (c < 0xc0) return c == 0xaa || c == 0xb5 || c == 0xba;
  return c != 0xd7 && c != 0xf7 && !(c >= 0x2000 && c <= 0x2bff) && !(c >= 0x3000 && c <= 0x303f) &&
         c != 0xfffd;
}

}  // namespace

std::string_view token_class_name(TokenClass kind) {
  switch (kind) {
    case TokenClass::sentinel: return "sentinels";
    case TokenClass::special: return "start and end";
    case TokenClass::punctuation: return "punctuation";
    case TokenClass::number: return "numbers";
    case TokenClass::function_word: return "function words";
    case TokenClass::capitalised: return "capitalised";
    case TokenClass::word: return "other words";
    case TokenClass::part: return "parts of words";
  }
  return "";
}

TokenClass token_class(std::string_view piece, int64_t id) {
  if (id < 3) return TokenClass::special;
  if (piece.starts_with("<extra_id_")) return TokenClass::sentinel;
  const bool begins = piece.starts_with(kSpace);
  if (begins) piece.remove_prefix(kSpace.size());
  bool letter = false, digit = false, capital = false;
  std::string lower;
  for (std::string_view rest = piece; !rest.empty();) {
    const char32_t c = take_character(rest);
    if (is_letter(c) && !letter && !digit) capital = is_capital(c);
    letter = letter || is_letter(c);
    digit = digit || is_digit(c);
    lower += c >= U'A' && c <= U'Z' ? static_cast<char>(c - U'A' + U'a')
             : c < 0x80             ? static_cast<char>(c)
                                    : '?';
  }
  if (!letter) return digit ? TokenClass::number : TokenClass::punctuation;
  if (!begins) return TokenClass::part;
  if (std::binary_search(std::begin(kFunctionWords), std::end(kFunctionWords), lower)) {
    return TokenClass::function_word;
  }
  return capital ? TokenClass::capitalised : TokenClass::word;
}

}  // namespace sw
