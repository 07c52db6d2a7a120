// Casts of MultiRC and ReCoRD, whose official files nest questions in passages.
#include <algorithm>
#include <set>

#include "libswitch/base/error.h"
#include "libswitch/data/tasks/metrics/python_text.h"
#include "libswitch/data/tasks/task_kind.h"

namespace sw {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

// The part `name` of an index, which public copies write as an object and official files as numbers
// of their own; `otherwise` where there is none.
std::string index_of(const RawRecord& record, const char* name, const std::string& otherwise) {
  if (!record.has("idx")) return otherwise;
  if (!record.at("idx").is_object()) return std::to_string(record.integer("idx"));
  return std::to_string(record.object("idx").integer(name));
}

void add_multirc(const TaskKind& kind, const std::string& paragraph, const std::string& question,
                 const RawRecord& answer, const char* answer_field, const std::string& group,
                 Examples& out) {
  std::string input = fmt::format("{} question: {} answer: {} paragraph: {}", kind.prefix, question,
                                  answer.text(answer_field), paragraph);
  replace_all(input, "<br>", " ");
  replace_all(input, "</b>", "");
  replace_all(input, "<b>", "");
  const int32_t label = class_label(answer, answer.label_field({"label"}), kind.classes);
  const Reference reference{label, {}, group};
  if (label < 0) return out.add_unlabelled(std::move(input), answer.place(), reference);
  out.add(std::move(input), kind.classes[static_cast<size_t>(label)], reference);
}

// A highlight becomes a sentence of the passage: the line between loses its mark, and what is
// before it gets a full stop unless it ends like a sentence.
std::string with_highlights(std::string passage) {
  constexpr std::string_view kMark = "\n@highlight\n";
  std::string out;
  size_t begin = 0;
  for (size_t at; (at = passage.find(kMark, begin)) != passage.npos; begin = at + kMark.size()) {
    out.append(passage, begin, at - begin);
    const bool ended =
        at > begin && std::string_view(".?!\"'").find(passage[at - 1]) != std::string_view::npos;
    out += ended ? " " : ". ";
  }
  out.append(passage, begin);
  return out;
}

void add_record(const std::string& passage, const std::vector<std::string>& entities,
                const std::string& query, const std::vector<std::string>& answers,
                const std::string& group, const std::string& place, Examples& out) {
  std::string list;
  for (const std::string& entity : entities) list += (list.empty() ? "" : ", ") + entity;
  const std::string input = fmt::format("record query: {} entities: {} passage: {}", query, list,
                                        with_highlights(passage));
  const Reference reference{0, answers, group};
  if (answers.empty()) out.add_unlabelled(input, place, reference);
  for (const std::string& answer : answers) out.add(input, answer, reference);
}

// Texts of spans given by their first and last character, sorted, each once.
std::vector<std::string> span_texts(const RawRecord& passage) {
  const std::u32string text = decode_utf8(passage.text("text"));
  std::set<std::string> texts;
  for (const RawRecord& span : passage.objects("entities")) {
    const int64_t begin = span.integer("start"), end = span.integer("end");
    const auto size = static_cast<int64_t>(text.size());
    SW_CHECK(begin >= 0 && begin <= end && end < size, corrupt,
             "{}: characters {} to {} of a text of {}", span.place(), begin, end, size);
    std::string piece;
    for (int64_t i = begin; i <= end; ++i) append_utf8(text[static_cast<size_t>(i)], piece);
    texts.insert(std::move(piece));
  }
  return {texts.begin(), texts.end()};
}

}  // namespace

void cast_multirc(const TaskKind& kind, const RawRecord& record, Examples& out) {
  if (!record.has("passage") || !record.at("passage").is_object()) {
    const std::string& paragraph = record.text("paragraph");
    const std::string& question = record.text("question");
    add_multirc(kind, paragraph, question, record, "answer",
                index_of(record, "question", paragraph + '\n' + question), out);
    return;
  }
  const RawRecord passage = record.object("passage");
  const std::string& paragraph = passage.text("text");
  for (const RawRecord& question : passage.objects("questions")) {
    const std::string& text = question.text("question");
    const std::string group = index_of(question, "question", paragraph + '\n' + text);
    for (const RawRecord& answer : question.objects("answers")) {
      add_multirc(kind, paragraph, text, answer, "text", group, out);
    }
  }
}

void cast_record(const TaskKind&, const RawRecord& record, Examples& out) {
  if (!record.has("qas")) {
    const std::string alone = record.place();  // a group of its own
    const std::string group =
        index_of(record, "passage", alone) + " " + index_of(record, "query", alone);
    const bool answered = record.label_field({"answers"}) != nullptr;
    add_record(record.text("passage"), record.texts("entities"), record.text("query"),
               answered ? record.texts("answers") : std::vector<std::string>(), group,
               record.place(), out);
    return;
  }
  const RawRecord passage = record.object("passage");
  const std::vector<std::string> entities = span_texts(passage);
  for (const RawRecord& qa : record.objects("qas")) {
    std::set<std::string> answers;
    if (qa.label_field({"answers"}) != nullptr) {
      for (const RawRecord& answer : qa.objects("answers")) answers.insert(answer.text("text"));
    }
    const std::string group =
        index_of(record, "passage", record.place()) + " " + index_of(qa, "query", qa.place());
    add_record(passage.text("text"), entities, qa.text("query"), {answers.begin(), answers.end()},
               group, qa.place(), out);
  }
}

}  // namespace sw
