// One example of a task as its file has it: a JSON object, or a row of a table.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sw {

/// What the examples of one file have in common.
struct RawLayout {
  std::string fields;  // what examples have, for messages
  // Where the first one stands that has a label, and the first that lacks the field of one.
  std::string labelled, unlabelled;
};

/// Whether `given` is `wanted` but for case and one slip: a letter too many, too few, another, or
/// two that have changed places.
bool is_slip_of(std::string wanted, std::string given);

/// A JSON object that lives as long as its file is read, and where it stands there. What is asked
/// of it and is not there, or is of another type, throws corrupt: "train.jsonl:12: no field ...".
class RawRecord {
 public:
  /// Throws corrupt when `value` is no object. `layout` is that of its file.
  RawRecord(const nlohmann::json& value, std::string place, RawLayout& layout);

  const std::string& place() const { return place_; }
  bool has(const char* field) const;
  /// The first of `fields` that the record has: public copies of a data set name fields
  /// differently.
  const char* first_of(std::initializer_list<const char*> fields) const;
  /// The field with the label: the first of `fields` that the record has; nullptr: none, as in test
  /// sets, or null. A label that is lost by a slip would make the example one of a test set, so
  /// throws corrupt where some examples of the file have a label and others lack the field, and
  /// where another's name is a slip of it. A field that says "none" (-1, "-", []) is no label.
  const char* label_field(const std::vector<const char*>& fields) const;
  const nlohmann::json& at(const char* field) const;

  const std::string& text(const char* field) const;
  int64_t integer(const char* field) const;
  RawRecord object(const char* field) const;
  std::vector<RawRecord> objects(const char* field) const;
  /// A list of strings.
  std::vector<std::string> texts(const char* field) const;

  /// "train.jsonl:12: field \"label\" is 7, expected ...".
  [[noreturn]] void refuse(const char* field, const std::string& expected) const;

 private:
  const nlohmann::json* value_;
  std::string place_;
  RawLayout* layout_;
};

/// The class that field `field` (of label_field) names: an integer, a name of `classes` in any
/// case, an integer as a string, true and false for 1 and 0 where there are two; -1: not labelled,
/// as where there is no such field (the official test files of SuperGLUE) or it is "-" (MultiNLI,
/// where annotators disagree). Throws corrupt.
int32_t class_label(const RawRecord& record, const char* field,
                    const std::vector<const char*>& classes);

}  // namespace sw
