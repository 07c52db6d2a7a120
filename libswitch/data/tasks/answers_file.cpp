#include "libswitch/data/tasks/answers_file.h"

#include <nlohmann/json.hpp>

#include "libswitch/base/error.h"
#include "libswitch/data/line_reader.h"

namespace sw {
namespace {

constexpr int64_t kMaxAnswerBytes = int64_t{64} << 20;

// The field of a JSON object that holds an answer; nullptr: the line is no such object.
const char* answer_field(const nlohmann::json& line) {
  if (!line.is_object()) return nullptr;
  for (const char* field : {"prediction", "text"}) {
    const auto it = line.find(field);
    if (it != line.end() && it->is_string()) return field;
  }
  return nullptr;
}

nlohmann::json parse_line(const std::string& line) {
  return nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

std::vector<std::string> read_answers(const std::filesystem::path& path) {
  LineReader reader(path, kMaxAnswerBytes);
  std::vector<std::string> answers;
  const char* field = nullptr;
  for (std::string line; reader.next(line);) {
    require_utf8(line, reader.place());
    if (answers.empty() && line.starts_with('{')) field = answer_field(parse_line(line));
    if (field != nullptr) {
      nlohmann::json object = parse_line(line);
      const bool holds = object.is_object() && object.contains(field) && object[field].is_string();
      SW_CHECK(holds, corrupt,
               "{}: expected a JSON object with a string \"{}\", as on the first line",
               reader.place(), field);
      line = object[field].get<std::string>();
    }
    answers.push_back(std::move(line));
    line.clear();
  }
  return answers;
}

}  // namespace sw
