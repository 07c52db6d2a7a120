#include "libswitch/data/tasks/raw_record.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/data/tasks/json_text.h"

namespace sw {
namespace {

std::string lower_ascii(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return text;
}

std::optional<int64_t> as_integer(const nlohmann::json& value) {
  if (value.is_number_integer()) {
    if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return std::nullopt;
    return value.get<int64_t>();
  }
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (number == std::floor(number) && std::abs(number) < 1e15) {
      return static_cast<int64_t>(number);
    }
    return std::nullopt;
  }
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  int64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return number;
}

// What test sets have for a label.
bool says_unlabelled(const nlohmann::json& value) {
  return value == -1 || value == "-1" || value == "-" || (value.is_array() && value.empty());
}

}  // namespace

bool is_slip_of(std::string wanted, std::string given) {
  const size_t longer = std::max(wanted.size(), given.size());
  if (longer - std::min(wanted.size(), given.size()) > 1) return false;
  wanted = lower_ascii(std::move(wanted));
  given = lower_ascii(std::move(given));
  if (edit_distance(wanted, given) <= 1) return true;
  for (size_t i = 1; i < given.size(); ++i) {
    std::swap(given[i - 1], given[i]);
    if (given == wanted) return true;
    std::swap(given[i - 1], given[i]);
  }
  return false;
}

RawRecord::RawRecord(const nlohmann::json& value, std::string place, RawLayout& layout)
    : value_(&value), place_(std::move(place)), layout_(&layout) {
  SW_CHECK(value.is_object(), corrupt, "{}: expected a JSON object, got {}; {}", place_,
           shown_json(value), layout.fields);
}

bool RawRecord::has(const char* field) const {
  const auto it = value_->find(field);
  return it != value_->end() && !it->is_null();
}

const char* RawRecord::first_of(std::initializer_list<const char*> fields) const {
  for (const char* field : fields) {
    if (has(field)) return field;
  }
  return *fields.begin();
}

const char* RawRecord::label_field(const std::vector<const char*>& fields) const {
  const auto mixed = [&](const std::string& without, const std::string& with) {
    fail(ErrorKind::corrupt,
         "{}: no field \"{}\", but {} has a label; give one to all examples or to none", without,
         fields[0], with);
  };
  for (const char* field : fields) {
    const auto it = value_->find(field);
    if (it == value_->end()) continue;
    if (it->is_null()) return nullptr;
    if (says_unlabelled(*it)) return field;
    if (layout_->labelled.empty()) layout_->labelled = place_;
    if (!layout_->unlabelled.empty()) mixed(layout_->unlabelled, place_);
    return field;
  }
  for (const auto& [name, value] : value_->items()) {
    for (const char* field : fields) {
      SW_CHECK(
          !is_slip_of(field, name), corrupt,
          "{}: no field \"{}\", but \"{}\"; rename it if it is the label, else leave it out; {}",
          place_, field, name, layout_->fields);
    }
  }
  if (layout_->unlabelled.empty()) layout_->unlabelled = place_;
  if (!layout_->labelled.empty()) mixed(place_, layout_->labelled);
  return nullptr;
}

const nlohmann::json& RawRecord::at(const char* field) const {
  const auto it = value_->find(field);
  if (it != value_->end()) return *it;
  std::vector<std::string> keys;
  std::string listed;
  for (const auto& item : value_->items()) {
    if (keys.size() == 16) break;
    keys.push_back(item.key().substr(0, 64));
    listed += (listed.empty() ? "" : ", ") + keys.back();
  }
  fail(ErrorKind::corrupt, "{}: no field \"{}\" (there is: {}){}; {}", place_, field,
       listed.empty() ? "nothing" : listed, nearest_hint(field, keys), layout_->fields);
}

void RawRecord::refuse(const char* field, const std::string& expected) const {
  fail(ErrorKind::corrupt, "{}: field \"{}\" is {}, expected {}", place_, field,
       shown_json(at(field)), expected);
}

const std::string& RawRecord::text(const char* field) const {
  const auto& value = at(field);
  if (!value.is_string()) refuse(field, "a string");
  return value.get_ref<const std::string&>();
}

int64_t RawRecord::integer(const char* field) const {
  const auto number = as_integer(at(field));
  if (!number) refuse(field, "an integer");
  return *number;
}

RawRecord RawRecord::object(const char* field) const {
  const auto& value = at(field);
  if (!value.is_object()) refuse(field, "an object");
  return {value, fmt::format("{}: {}", place_, field), *layout_};
}

std::vector<RawRecord> RawRecord::objects(const char* field) const {
  const auto& value = at(field);
  if (!value.is_array()) refuse(field, "a list of objects");
  std::vector<RawRecord> out;
  out.reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    out.emplace_back(value[i], fmt::format("{}: {}[{}]", place_, field, i), *layout_);
  }
  return out;
}

std::vector<std::string> RawRecord::texts(const char* field) const {
  const auto& value = at(field);
  if (!value.is_array()) refuse(field, "a list of strings");
  std::vector<std::string> out;
  out.reserve(value.size());
  for (const auto& item : value) {
    if (!item.is_string()) refuse(field, "a list of strings, not one with " + shown_json(item));
    out.push_back(item.get_ref<const std::string&>());
  }
  return out;
}

int32_t class_label(const RawRecord& record, const char* field,
                    const std::vector<const char*>& classes) {
  if (field == nullptr || !record.has(field)) return -1;
  const auto count = static_cast<int64_t>(classes.size());
  const auto& value = record.at(field);
  if (value.is_boolean() && count == 2) return value.get<bool>() ? 1 : 0;
  std::vector<std::string> names;
  if (value.is_string()) {
    const std::string text = lower_ascii(value.get<std::string>());
    if (text == "-") return -1;
    for (int32_t i = 0; i < count; ++i) {
      names.push_back(lower_ascii(classes[static_cast<size_t>(i)]));
      if (names.back() == text) return i;
    }
  }
  const auto number = as_integer(value);
  if (number && *number >= -1 && *number < count) return static_cast<int32_t>(*number);
  std::string expected;
  for (int64_t i = 0; i < count; ++i) {
    expected += fmt::format("{} {}, ", i, classes[static_cast<size_t>(i)]);
  }
  expected += "or -1 where there is none";
  if (value.is_string()) expected += nearest_hint(lower_ascii(value.get<std::string>()), names);
  record.refuse(field, expected);
}

}  // namespace sw
