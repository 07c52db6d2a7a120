// Documents from text: plain lines, blocks between blank lines, or JSON lines; plain or compressed;
// files or standard input.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/data/line_reader.h"

namespace sw {

enum class TextFormat {
  lines,        // one document per line
  blank_lines,  // a document is a run of lines; one or more blank lines separate documents
  json_lines,   // one JSON object per line; the document is one of its string fields
};

struct TextOptions {
  TextFormat format = TextFormat::lines;
  std::string json_field = "text";
  /// Longest line, and longest document between blank lines. Guards against binary input.
  int64_t max_document_bytes = int64_t{64} << 20;
};

/// A document as it stands in the file: a line, or the lines between two blank lines.
struct TextRecord {
  std::string raw;
  int64_t file = 0;  // index into the source's files
  int64_t line = 0;  // of its first line, from 1
};

/// Streams records in the order of the files, at constant memory. Reading is serial; turning a
/// record into text (JSON, UTF-8 check) is thread-safe, so that it can run beside the tokenizer.
class TextSource {
 public:
  /// No files or "-" is standard input. Throws missing when a file is not there, before any is
  /// read.
  TextSource(std::vector<std::filesystem::path> files, TextOptions options);
  ~TextSource();

  /// The next record; false at the end of the last file. Blank records are passed over. Throws
  /// corrupt (file, line) for a record over the limit and for damaged archives.
  bool next_record(TextRecord& record);

  /// The text of a record, possibly empty. Throws corrupt naming file, line and byte for text that
  /// is not UTF-8, malformed JSON, and a field that is missing or no string. Thread-safe.
  std::string document(TextRecord&& record) const;

  /// next_record and document in one; documents without text are passed over.
  bool next(std::string& text);

  /// "file:line" of a record.
  std::string place(const TextRecord& record) const;
  const std::vector<std::filesystem::path>& files() const { return files_; }
  /// Uncompressed bytes read so far.
  int64_t bytes_read() const;

 private:
  std::vector<std::filesystem::path> files_;
  TextOptions options_;
  std::unique_ptr<LineReader> reader_;  // of the current file
  size_t next_file_ = 0;
  int64_t bytes_before_ = 0;  // of the files that are done
};

}  // namespace sw
