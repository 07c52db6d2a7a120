#include "libswitch/data/json_field.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "libswitch/base/error.h"

namespace sw {
namespace {

// Takes one string field of the outermost object.
class FieldReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit FieldReader(const std::string& field) : field_(field) {}

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t) override { return other("a number"); }
  bool number_unsigned(number_unsigned_t) override { return other("a number"); }
  bool number_float(number_float_t, const string_t&) override { return other("a number"); }
  bool binary(binary_t&) override { return other("binary"); }
  bool string(string_t& value) override {
    if (depth_ == 1 && wanted_) text = std::move(value), found = true, other_type = nullptr;
    wanted_ = false;
    if (depth_ == 0) outermost = "a string";
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ == 0) outermost = nullptr;
    other("an object");
    ++depth_;
    return true;
  }
  bool end_object() override { return --depth_, true; }
  bool start_array(std::size_t) override {
    if (depth_ == 0) outermost = "an array";
    other("an array");
    ++depth_;
    return true;
  }
  bool end_array() override { return --depth_, true; }
  bool key(string_t& name) override {
    if (depth_ == 1) {
      wanted_ = name == field_;
      if (keys.size() < 32) keys.push_back(name.substr(0, 64));
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    error_position = static_cast<int64_t>(position);
    error_text = error.what();
    return false;
  }

  std::string text;
  bool found = false;
  const char* other_type = nullptr;   // what the field holds when it is no string
  const char* outermost = "a value";  // what the line holds when it is no object
  std::vector<std::string> keys;
  int64_t error_position = 0;
  std::string error_text;

 private:
  bool other(const char* type) {
    if (depth_ == 1 && wanted_) other_type = type, found = false;
    if (depth_ == 1) wanted_ = false;
    return true;
  }

  const std::string& field_;
  int depth_ = 0;
  bool wanted_ = false;
};

}  // namespace

std::string string_field(std::string_view line, const std::string& field,
                         const std::function<std::string()>& place) {
  SW_CHECK(line.find_first_not_of(" \t\r") != std::string_view::npos, corrupt,
           "{}: an empty line, expected a JSON object with the field \"{}\"", place(), field);
  FieldReader reader(field);
  if (!nlohmann::json::sax_parse(line, &reader)) {
    // nlohmann's message opens with its own error number; what follows says what was expected.
    std::string what = reader.error_text;
    if (const size_t colon = what.find(": "); colon != std::string::npos) what.erase(0, colon + 2);
    if (what.size() > 200) what.resize(200);
    fail(ErrorKind::corrupt, "{}: malformed JSON at byte {}: {}", place(), reader.error_position,
         what);
  }
  SW_CHECK(reader.outermost == nullptr, corrupt, "{}: expected a JSON object, got {}", place(),
           reader.outermost);
  SW_CHECK(reader.other_type == nullptr, corrupt, "{}: field \"{}\" is {}, expected a string",
           place(), field, reader.other_type);
  if (!reader.found) {
    std::string keys;
    for (const auto& key : reader.keys) keys += (keys.empty() ? "" : ", ") + key;
    fail(ErrorKind::corrupt, "{}: no field \"{}\" in this JSON object (it has: {}){}", place(),
         field, keys.empty() ? "none" : keys, nearest_hint(field, reader.keys));
  }
  return std::move(reader.text);
}

}  // namespace sw
