#include "libswitch/data/text_source.h"

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"

namespace sw {
namespace {

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

// Takes one string field of the outermost object and builds nothing else, so that a line of any
// depth and size costs no more than its text.
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

TextSource::TextSource(std::vector<std::filesystem::path> files, TextOptions options)
    : files_(std::move(files)), options_(std::move(options)) {
  if (files_.empty()) files_.emplace_back("-");
  for (const auto& file : files_) {
    if (file != "-") open_for_read(file);
  }
}
TextSource::~TextSource() = default;

std::string TextSource::place(const TextRecord& record) const {
  return line_place(files_[static_cast<size_t>(record.file)], record.line);
}

int64_t TextSource::bytes_read() const {
  return bytes_before_ + (reader_ != nullptr ? reader_->bytes_read() : 0);
}

bool TextSource::next_record(TextRecord& record) {
  std::string line;
  record.raw.clear();
  for (;;) {
    if (reader_ == nullptr) {
      if (next_file_ == files_.size()) return false;
      reader_ = std::make_unique<LineReader>(files_[next_file_++], options_.max_document_bytes);
    }
    record.file = static_cast<int64_t>(next_file_) - 1;
    const bool more = reader_->next(line);
    const int64_t number = reader_->line();
    if (!more) {
      bytes_before_ += reader_->bytes_read();
      reader_.reset();
    }
    if (options_.format != TextFormat::blank_lines) {
      if (!more || is_blank(line)) continue;
      record.raw = std::move(line);
      record.line = number;
      return true;
    }
    if (!more || is_blank(line)) {
      if (!record.raw.empty()) return true;
      continue;
    }
    if (record.raw.empty()) {
      record.line = number;
    } else {
      record.raw += '\n';
    }
    record.raw += line;
    SW_CHECK(static_cast<int64_t>(record.raw.size()) <= options_.max_document_bytes, corrupt,
             "{}: document is longer than {} bytes; are documents separated by blank lines?",
             place(record), options_.max_document_bytes);
  }
}

std::string TextSource::document(TextRecord&& record) const {
  require_utf8(record.raw, place(record),
               options_.format == TextFormat::blank_lines ? "document" : "line");
  if (options_.format != TextFormat::json_lines) return std::move(record.raw);
  FieldReader reader(options_.json_field);
  if (!nlohmann::json::sax_parse(record.raw, &reader)) {
    // nlohmann's message opens with its own error number; what follows says what was expected.
    std::string what = reader.error_text;
    if (const size_t colon = what.find(": "); colon != std::string::npos) what.erase(0, colon + 2);
    if (what.size() > 200) what.resize(200);
    fail(ErrorKind::corrupt, "{}: malformed JSON at byte {}: {}", place(record),
         reader.error_position, what);
  }
  SW_CHECK(reader.outermost == nullptr, corrupt, "{}: expected a JSON object, got {}",
           place(record), reader.outermost);
  SW_CHECK(reader.other_type == nullptr, corrupt, "{}: field \"{}\" is {}, expected a string",
           place(record), options_.json_field, reader.other_type);
  if (!reader.found) {
    std::string keys;
    for (const auto& key : reader.keys) keys += (keys.empty() ? "" : ", ") + key;
    fail(ErrorKind::corrupt, "{}: no field \"{}\" in this JSON object (it has: {}){}",
         place(record), options_.json_field, keys, nearest_hint(options_.json_field, reader.keys));
  }
  return std::move(reader.text);
}

bool TextSource::next(std::string& text) {
  TextRecord record;
  while (next_record(record)) {
    text = document(std::move(record));
    if (!is_blank(text)) return true;
  }
  return false;
}

}  // namespace sw
