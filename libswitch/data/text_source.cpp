#include "libswitch/data/text_source.h"

#include <string_view>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/data/json_field.h"

namespace sw {
namespace {

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

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
  return string_field(record.raw, options_.json_field, [&] { return place(record); });
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
