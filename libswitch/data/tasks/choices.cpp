// Casts of Winogrande and ARC, whose answer is the text of a choice, and of summaries. For
// Winogrande and ARC the T5 authors released none: these are made like that of COPA.
#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/data/tasks/task_kind.h"

namespace sw {
namespace {

std::string with_choices(std::string input, const std::vector<std::string>& choices) {
  for (size_t i = 0; i < choices.size(); ++i) {
    input += fmt::format(" choice{}: {}", i + 1, choices[i]);
  }
  return input;
}

struct Choices {
  std::vector<std::string> texts, labels;
};

Choices choices_of(const RawRecord& record) {
  if (record.at("choices").is_object()) {
    const RawRecord choices = record.object("choices");
    return {choices.texts("text"), choices.texts("label")};
  }
  Choices out;
  for (const RawRecord& choice : record.objects("choices")) {
    out.texts.push_back(choice.text("text"));
    out.labels.push_back(choice.text("label"));
  }
  return out;
}

}  // namespace

void cast_winogrande(const TaskKind& kind, const RawRecord& record, Examples& out) {
  const std::vector<std::string> options{record.text("option1"), record.text("option2")};
  std::string input =
      with_choices(fmt::format("{} {}", kind.prefix, record.text("sentence")), options);
  int32_t right = -1;
  const char* field = record.label_field({"answer", "label"});
  if (field != nullptr && std::string_view(field) == "answer") {  // "1" or "2"; empty in test data
    if (!(record.at("answer").is_string() && record.text("answer").empty())) {
      const int64_t answer = record.integer("answer");
      if (answer != 1 && answer != 2) record.refuse("answer", "1, 2 or nothing");
      right = static_cast<int32_t>(answer) - 1;
    }
  } else {
    right = class_label(record, field, {"option1", "option2"});
  }
  if (right < 0) return out.add_unlabelled(std::move(input), record.place());
  out.add(std::move(input), options[static_cast<size_t>(right)]);
}

void cast_arc(const TaskKind& kind, const RawRecord& record, Examples& out) {
  // As published the question is an object that holds the choices.
  const bool nested = record.at("question").is_object();
  const RawRecord holder = nested ? record.object("question") : record;
  const std::string& question = nested ? holder.text("stem") : record.text("question");
  const Choices choices = choices_of(holder);
  if (choices.texts.empty() || choices.texts.size() != choices.labels.size()) {
    holder.refuse("choices", "as many labels as texts, and some");
  }
  std::string input = with_choices(fmt::format("{} {}", kind.prefix, question), choices.texts);
  const auto& key = record.at("answerKey");
  if ((key.is_string() && record.text("answerKey").empty()) || key == -1) {
    return out.add_unlabelled(std::move(input), record.place());
  }
  int64_t right = static_cast<int64_t>(choices.texts.size());
  if (key.is_string()) {
    const auto at =
        std::find(choices.labels.begin(), choices.labels.end(), record.text("answerKey"));
    right = at - choices.labels.begin();
  } else {
    right = record.integer("answerKey");
  }
  if (right < 0 || right >= static_cast<int64_t>(choices.texts.size())) {
    std::string labels;
    for (const std::string& label : choices.labels) labels += (labels.empty() ? "" : ", ") + label;
    record.refuse("answerKey", "one of " + labels);
  }
  out.add(std::move(input), choices.texts[static_cast<size_t>(right)]);
}

void cast_summary(const TaskKind& kind, const RawRecord& record, Examples& out) {
  // The fields of the one data set or of the other, whichever name it goes by.
  const char* article = record.first_of({kind.features[0], "article", "document"});
  const char* summary = record.first_of({kind.features[1], "highlights", "summary"});
  std::string input = fmt::format("{} {}", kind.prefix, record.text(article));
  out.add(std::move(input), record.text(summary));
}

}  // namespace sw
