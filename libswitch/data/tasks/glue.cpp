// Casts of GLUE, and of the tasks of SuperGLUE that go by its rule.
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/data/tasks/metrics/python_text.h"
#include "libswitch/data/tasks/task_kind.h"

namespace sw {
namespace {

// Names that other copies of a data set give a field: ANLI's premise, and both of AX-b.
const char* field_of(const RawRecord& record, const char* feature) {
  const std::string_view name = feature;
  if (name == "premise") return record.first_of({"premise", "context", "sentence1"});
  if (name == "hypothesis") return record.first_of({"hypothesis", "sentence2"});
  return feature;
}

// BoolQ as first published has "answer"; tables have a header of their own, which is the field of
// the same data as JSON (MultiNLI).
const char* label_field(const TaskKind& kind, const RawRecord& record) {
  std::vector<const char*> fields{"label", "answer"};
  for (const TableColumn& column : kind.table) {
    if (std::string_view(column.field) == "label") fields.push_back(column.header);
  }
  return record.label_field(fields);
}

// ANLI's authors write labels as one letter.
int32_t label_of(const TaskKind& kind, const RawRecord& record) {
  const char* field = label_field(kind, record);
  if (std::string_view(kind.name) == "anli" && field != nullptr && record.at(field).is_string()) {
    const std::string& text = record.text(field);
    if (text == "e") return 0;
    if (text == "n") return 1;
    if (text == "c") return 2;
  }
  return class_label(record, field, kind.classes);
}

}  // namespace

void cast_plain(const TaskKind&, const RawRecord& record, Examples& out) {
  const std::string& input = record.text("input");
  out.add(input, record.text("target"));
}

void cast_features(const TaskKind& kind, const RawRecord& record, Examples& out) {
  std::string input = kind.prefix;
  for (const char* feature : kind.features) {
    input += fmt::format(" {}: {}", feature, record.text(field_of(record, feature)));
  }
  const int32_t label = label_of(kind, record);
  if (label < 0) return out.add_unlabelled(std::move(input), record.place());
  out.add(std::move(input), kind.classes[static_cast<size_t>(label)], {label, {}, ""});
}

void cast_stsb(const TaskKind& kind, const RawRecord& record, Examples& out) {
  std::string input = fmt::format("stsb sentence1: {} sentence2: {}", record.text("sentence1"),
                                  record.text("sentence2"));
  const char* field = label_field(kind, record);
  if (field == nullptr) return out.add_unlabelled(std::move(input), record.place());
  const auto& value = record.at(field);
  const auto score = value.is_number()   ? std::optional(value.get<double>())
                     : value.is_string() ? python_float(value.get_ref<const std::string&>())
                                         : std::nullopt;
  if (score && *score == -1) return out.add_unlabelled(std::move(input), record.place());
  if (!score || !(*score >= 0 && *score <= 5)) {
    record.refuse(field, "a similarity from 0 to 5, or -1 where there is none");
  }
  // To fifths, halves to even, in the single precision that the authors' graph has.
  const float rounded = std::nearbyint(static_cast<float>(*score) * 5.0F) / 5.0F;
  out.add(std::move(input), fmt::format("{:.1f}", rounded));
}

}  // namespace sw
