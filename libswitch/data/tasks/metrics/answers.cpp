#include "libswitch/data/tasks/metrics/answers.h"

#include <algorithm>
#include <map>

#include "libswitch/data/tasks/metrics/python_text.h"

namespace sw {
namespace {

bool is_ascii_punctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

bool is_article(const std::u32string& word) {
  return word == U"a" || word == U"an" || word == U"the";
}

// A run of word characters that is an article becomes a space; then white space is collapsed.
std::string without_articles(const std::u32string& text) {
  std::string out;
  std::u32string word;
  const auto close_word = [&] {
    if (is_article(word)) word = U" ";
    for (const char32_t c : word) append_utf8(c, out);
    word.clear();
  };
  for (const char32_t c : text) {
    if (is_word_character(c)) {
      word += c;
    } else {
      close_word();
      append_utf8(c, out);
    }
  }
  close_word();
  std::string collapsed;
  for (const std::string& w : python_split(out)) collapsed += (collapsed.empty() ? "" : " ") + w;
  return collapsed;
}

double word_f1(const std::string& reference, const std::string& answer) {
  const auto of_reference = python_split(reference), of_answer = python_split(answer);
  std::map<std::string_view, int64_t> left;
  for (const std::string& word : of_reference) ++left[word];
  int64_t same = 0;
  for (const std::string& word : of_answer) {
    if (const auto it = left.find(word); it != left.end() && it->second > 0) --it->second, ++same;
  }
  if (same == 0) return 0;
  const double precision = static_cast<double>(same) / static_cast<double>(of_answer.size());
  const double recall = static_cast<double>(same) / static_cast<double>(of_reference.size());
  return 2 * precision * recall / (precision + recall);
}

}  // namespace

std::string normalize_squad(std::string_view answer) {
  std::u32string kept;
  for (const char32_t c : decode_utf8(python_lower(answer))) {
    if (!is_ascii_punctuation(c)) kept += c;
  }
  return without_articles(kept);
}

std::string normalize_trivia_qa(std::string_view answer) {
  std::u32string spaced = decode_utf8(python_lower(answer));
  for (char32_t& c : spaced) {
    if (is_ascii_punctuation(c) || c == 0x2018 || c == 0x2019 || c == 0xB4) c = ' ';
  }
  return without_articles(spaced);
}

AnswerScores answer_scores(std::span<const std::vector<std::string>> references,
                           std::span<const std::string> answers) {
  double exact = 0, f1 = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    bool equal = false;
    double best = 0;
    for (const std::string& reference : references[i]) {
      equal |= reference == answers[i];
      best = std::max(best, word_f1(reference, answers[i]));
    }
    exact += equal ? 1 : 0;
    f1 += best;
  }
  const double n = std::max<double>(1, static_cast<double>(answers.size()));
  return {100 * exact / n, 100 * f1 / n};
}

}  // namespace sw
