// Casts of questions: SQuAD with its passages, and the closed-book sets (Roberts et al. 2020).
#include "libswitch/base/error.h"
#include "libswitch/data/tasks/spelling.h"
#include "libswitch/data/tasks/task_kind.h"

namespace sw {
namespace {

// "answers" as a list of strings, as {"text": [..]} or as a list of {"text": ..}.
std::vector<std::string> texts_of(const RawRecord& record, const char* field) {
  const auto& value = record.at(field);
  if (value.is_object()) return record.object(field).texts("text");
  if (value.is_string()) return {record.text(field)};
  if (!value.is_array() || value.empty() || value.front().is_string()) return record.texts(field);
  std::vector<std::string> out;
  for (const RawRecord& answer : record.objects(field)) out.push_back(answer.text("text"));
  return out;
}

// The name of a question in files of answers; empty: it has none.
std::string id_of(const RawRecord& record, const char* field) {
  if (!record.has(field)) return "";
  const auto& value = record.at(field);
  if (value.is_string()) return record.text(field);
  return value.is_number_integer() ? value.dump() : "";
}

void add_squad(const std::string& context, const RawRecord& record, Examples& out) {
  std::string input = collapse_spaces(fmt::format("question: {} context: {}",
                                                  pad_punctuation(record.text("question")),
                                                  pad_punctuation(context)));
  out.ids.push_back(id_of(record, "id"));
  Reference reference{0, texts_of(record, "answers"), ""};
  if (reference.answers.empty()) return out.add_unlabelled(std::move(input), record.place());
  std::string target = pad_punctuation(reference.answers.front());
  out.add(std::move(input), std::move(target), std::move(reference));
}

// WebQuestions as first published: (list (description "Jazmyn Bieber") (description Jaxon)).
std::vector<std::string> described(const RawRecord& record, const char* field) {
  const std::string& text = record.text(field);
  constexpr std::string_view kOpening = "(description ";
  std::vector<std::string> out;
  for (size_t at = 0; (at = text.find(kOpening, at)) != text.npos;) {
    at += kOpening.size();
    const bool quoted = at < text.size() && text[at] == '"';
    if (quoted) ++at;
    std::string answer;
    const char end = quoted ? '"' : ')';
    for (; at < text.size() && text[at] != end; ++at) {
      if (quoted && text[at] == '\\' && at + 1 < text.size()) ++at;
      answer += text[at];
    }
    if (at == text.size()) record.refuse(field, "(list (description ..) ..)");
    out.push_back(std::move(answer));
  }
  if (out.empty() && !text.starts_with("(list")) {
    record.refuse(field, "(list (description ..) ..)");
  }
  return out;
}

struct Answered {
  std::vector<std::string> answers;
  std::string target;
};

// TriviaQA's answer: a value and all its names.
Answered named_answer(const RawRecord& answer) {
  const char* value = answer.first_of({"value", "Value"});
  const char* aliases = answer.first_of({"aliases", "Aliases"});
  Answered out{{}, answer.text(value)};
  if (answer.has(aliases)) out.answers = answer.texts(aliases);
  if (out.answers.empty() && !out.target.empty()) out.answers = {out.target};
  return out;
}

Answered answers_of(const RawRecord& record) {
  const char* field = record.first_of({"answers", "answer", "Answer", "targetValue"});
  const auto& value = record.at(field);
  if (value.is_object() && !value.contains("text")) return named_answer(record.object(field));
  Answered out{
      std::string_view(field) == "targetValue" ? described(record, field) : texts_of(record, field),
      ""};
  if (!out.answers.empty()) out.target = out.answers.front();
  return out;
}

}  // namespace

void cast_squad(const TaskKind&, const RawRecord& record, Examples& out) {
  if (!record.has("paragraphs")) return add_squad(record.text("context"), record, out);
  for (const RawRecord& paragraph : record.objects("paragraphs")) {
    const std::string& context = paragraph.text("context");
    for (const RawRecord& qa : paragraph.objects("qas")) add_squad(context, qa, out);
  }
}

void cast_question(const TaskKind& kind, const RawRecord& record, Examples& out) {
  const char* field = record.first_of({"question", "Question", "qText", "utterance"});
  std::string input = fmt::format("{} {}", kind.prefix, record.text(field));
  out.ids.push_back(id_of(record, record.first_of({"question_id", "QuestionId"})));
  Answered answered = answers_of(record);
  if (answered.answers.empty()) return out.add_unlabelled(std::move(input), record.place());
  out.add(std::move(input), std::move(answered.target), {0, std::move(answered.answers), ""});
}

}  // namespace sw
