// Casts of pronouns and their referents: WSC of SuperGLUE, and DPR (Rahman and Ng 2012).
#include <algorithm>
#include <cstdlib>

#include "libswitch/base/error.h"
#include "libswitch/data/tasks/metrics/python_text.h"
#include "libswitch/data/tasks/task_kind.h"

namespace sw {
namespace {

struct Span {
  std::string text;
  int64_t index = 0;  // of its first word
};

bool is_lower(const std::string& character) { return python_lower(character) == character; }

std::string first_character(const std::string& text) {
  std::string out;
  const std::u32string code_points = decode_utf8(text);
  if (!code_points.empty()) append_utf8(code_points.front(), out);
  return out;
}

// The official file has spans that differ from the text in case, a full stop or a line break;
// TensorFlow Datasets ("wsc.fixed") mends them like this.
void mend_span(const std::string& text, Span& span) {
  if (text.find(span.text) != text.npos || span.text.empty()) return;
  const auto words = python_split(text);
  if (span.index < 0 || span.index >= static_cast<int64_t>(words.size())) return;
  std::string mended = span.text;
  const std::string first = first_character(mended);
  if (is_lower(first_character(words[static_cast<size_t>(span.index)]))) {
    mended.replace(0, first.size(), python_lower(first));
  } else if (first[0] >= 'a' && first[0] <= 'z') {
    mended[0] = static_cast<char>(first[0] - 32);
  }
  while (mended.ends_with('.')) mended.pop_back();
  std::replace(mended.begin(), mended.end(), '\n', ' ');
  if (text.find(mended) != text.npos) span.text = std::move(mended);
}

// Where `pronoun` stands at or nearest to word `index`; -1: nowhere.
int64_t find_word(const std::vector<std::string>& words, const std::string& pronoun,
                  int64_t index) {
  int64_t best = -1;
  for (int64_t i = 0; i < static_cast<int64_t>(words.size()); ++i) {
    if (words[static_cast<size_t>(i)] != pronoun) continue;
    if (best < 0 || std::abs(i - index) < std::abs(best - index)) best = i;
  }
  return best;
}

// "Good for him," he said: the pronoun has punctuation beside it, which becomes words of its own.
int64_t part_word(std::vector<std::string>& words, const std::string& pronoun, int64_t index) {
  for (const int64_t i : {index, index - 1, index + 1}) {
    if (i < 0 || i >= static_cast<int64_t>(words.size())) continue;
    const std::string word = words[static_cast<size_t>(i)];
    const size_t at = word.find(pronoun);
    if (at == word.npos) continue;
    const auto is_letter = [](char c) {
      return static_cast<signed char>(c) < 0 || is_word_character(static_cast<char32_t>(c));
    };
    const size_t end = at + pronoun.size();
    if ((at > 0 && is_letter(word[at - 1])) || (end < word.size() && is_letter(word[end]))) {
      continue;
    }
    std::vector<std::string> parts;
    if (at > 0) parts.push_back(word.substr(0, at));
    parts.push_back(pronoun);
    if (end < word.size()) parts.push_back(word.substr(end));
    const auto place = words.erase(words.begin() + i);
    words.insert(place, parts.begin(), parts.end());
    return i + (at > 0 ? 1 : 0);
  }
  return -1;
}

Span span_of(const RawRecord& record, const char* text, const char* index) {
  return {record.text(text), record.integer(index)};
}

}  // namespace

void cast_wsc(const TaskKind& kind, const RawRecord& record, Examples& out) {
  const std::string& text = record.text("text");
  const bool official = record.has("target");
  const RawRecord target = official ? record.object("target") : record;
  Span referent = span_of(target, "span1_text", "span1_index");
  Span pronoun = span_of(target, "span2_text", "span2_index");
  if (official) {
    mend_span(text, referent);
    mend_span(text, pronoun);
  }
  SW_CHECK(!pronoun.text.empty(), corrupt, "{}: \"span2_text\" is empty, expected a pronoun",
           target.place());
  std::vector<std::string> words = split_at(text, ' ');
  const auto count = static_cast<int64_t>(words.size());
  // Far outside the text one index is like another, and arithmetic is safe.
  const int64_t index = std::clamp<int64_t>(pronoun.index, -2, count + 1);
  const bool inside = index >= 0 && index < count;
  int64_t at = inside && words[static_cast<size_t>(index)] == pronoun.text
                   ? index
                   : part_word(words, pronoun.text, index);
  if (at < 0) at = find_word(words, pronoun.text, index);
  SW_CHECK(
      at >= 0, corrupt,
      "{}: \"span2_text\" is '{}' at word {}, but no word of the text is; expected the pronoun "
      "as it stands there",
      target.place(), pronoun.text, pronoun.index);
  std::string& word = words[static_cast<size_t>(at)];
  word = '*' + word + '*';
  std::string input = kind.prefix;
  for (const std::string& w : words) input += ' ' + w;
  const int32_t label = class_label(record, record.label_field({"label"}), kind.classes);
  if (label >= 0) return out.add(std::move(input), referent.text, {label, {}, ""});
  // The referent is no secret; whether it is the right one is.
  out.add_unlabelled(std::move(input), record.place());
  out.pairs.back().target = referent.text;
}

void cast_dpr(const TaskKind& kind, const RawRecord& record, Examples& out) {
  std::string sentence = record.text("sentence");
  const std::string& pronoun = record.text("pronoun");
  const std::vector<std::string> candidates = record.texts("candidates");
  if (candidates.size() != 2) record.refuse("candidates", "a list of two strings");
  // The first mention that a space, a full stop or a comma follows.
  const std::string mention = ' ' + pronoun;
  for (size_t at = 0; (at = sentence.find(mention, at)) != sentence.npos; ++at) {
    const size_t end = at + mention.size();
    if (end < sentence.size() && std::string_view(" .,").find(sentence[end]) != std::string::npos) {
      sentence.insert(end, 1, '*');
      sentence.insert(at + 1, 1, '*');
      break;
    }
  }
  const int32_t right = class_label(record, record.label_field({"label"}),
                                    {candidates[0].c_str(), candidates[1].c_str()});
  std::string input = fmt::format("{} {}", kind.prefix, sentence);
  if (right < 0) return out.add_unlabelled(std::move(input), record.place());
  out.add(std::move(input), candidates[static_cast<size_t>(right)]);
}

}  // namespace sw
