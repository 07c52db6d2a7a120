#include "libswitch/data/tasks/answers_file.h"

#include <algorithm>
#include <unordered_set>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/data/line_reader.h"
#include "libswitch/data/tasks/json_text.h"

namespace sw {
namespace {

using nlohmann::json;
using Lines = std::vector<std::string>;

constexpr int64_t kMaxAnswerBytes = int64_t{64} << 20;
// Stands for no answer: U+FFFF, which is no character, equals no reference and is no word of one.
// An empty answer could be right, where a reference is an article or a punctuation mark.
constexpr const char* kUnanswered = "\uFFFF";

Lines read_lines(const std::filesystem::path& path) {
  LineReader reader(path, kMaxAnswerBytes);
  Lines lines;
  for (std::string line; reader.next(line); line.clear()) {
    require_utf8(line, reader.place());
    lines.push_back(std::move(line));
  }
  return lines;
}

json parse_line(const std::string& line) {
  return json::parse(line, nullptr, /*allow_exceptions=*/false);
}

// The field of a JSON object that holds an answer; nullptr: the line is no such object.
const char* answer_field(const std::string& line) {
  if (!line.starts_with('{')) return nullptr;
  const json object = parse_line(line);
  if (!object.is_object()) return nullptr;
  for (const char* field : {"prediction", "text"}) {
    const auto it = object.find(field);
    if (it != object.end() && it->is_string()) return field;
  }
  return nullptr;
}

void take_field(Lines& lines, const char* field, const std::filesystem::path& path) {
  for (size_t i = 0; i < lines.size(); ++i) {
    json object = parse_line(lines[i]);
    const bool holds = object.is_object() && object.contains(field) && object[field].is_string();
    SW_CHECK(holds, corrupt,
             "{}: expected a JSON object with a string \"{}\", as on the first line",
             line_place(path, static_cast<int64_t>(i) + 1), field);
    lines[i] = object[field].get<std::string>();
  }
}

// Lines that are all JSON objects of another kind, such as a benchmark's submission, are hardly
// answers in a model's words: they would score 0 without a sign of why.
void warn_of_other_objects(const Lines& lines, const std::string& file, const Task& task) {
  const auto asked_for = [](const TextPair& pair) { return pair.target.starts_with('{'); };
  if (lines.empty() || std::any_of(task.pairs().begin(), task.pairs().end(), asked_for)) return;
  const auto is_object = [](const std::string& line) {
    return line.starts_with('{') && parse_line(line).is_object();
  };
  if (!std::all_of(lines.begin(), lines.end(), is_object)) return;
  log::warn(
      "{}: every line is a JSON object without a string \"prediction\" or \"text\", and judged as "
      "it is; answers are expected in the words of --cast's targets, alone or in such a field",
      file);
}

// A JSON object of answers by id, discarded where the lines are none.
json parse_by_id(const Lines& lines, const std::string& file, JsonFault& fault, int64_t& line) {
  std::string text;
  for (const std::string& l : lines) text += l + '\n';
  std::unordered_set<std::string> seen;
  std::string repeated;
  json object = parse_json(text, fault, [&](int depth, json::parse_event_t event, json& key) {
    if (event == json::parse_event_t::key && depth == 1 &&
        !seen.insert(key.get<std::string>()).second) {
      repeated = key.get<std::string>();
    }
    return true;
  });
  line = 1 + lines_before(text, fault);
  if (object.is_discarded()) return object;
  SW_CHECK(repeated.empty(), corrupt,
           "{}: question \"{}\" has two answers, expected one; remove the other", file, repeated);
  return object;
}

Lines answers_by_id(const json& object, const std::string& file, const Task& task) {
  const Lines& ids = task.ids();
  const std::unordered_set<std::string_view> known(ids.begin(), ids.end());
  int64_t strange = 0;
  std::string example;
  for (const auto& [id, answer] : object.items()) {
    SW_CHECK(answer.is_string(), corrupt,
             "{}: the answer to question \"{}\" is {}, expected a string", file, id,
             shown_json(answer));
    if (known.count(id) == 0 && strange++ == 0) example = id;
  }
  // Published files have answers to questions that were withdrawn, and the official program passes
  // over them; a file that knows no question is of other data.
  SW_CHECK(
      strange == 0 || strange < std::ssize(object), corrupt,
      "{}: none of its {} ids is of a question of {}, such as \"{}\"; give --task the file whose "
      "questions they are",
      file, strange, task.file(), example);
  if (strange > 0) {
    log::warn("{}: {} of its {} ids are of no question of {}, such as \"{}\"; passed over", file,
              strange, object.size(), task.file(), example);
  }
  Lines answers;
  int64_t unanswered = 0;
  for (const std::string& id : ids) {
    const auto it = object.find(id);
    if (it == object.end() && unanswered++ == 0) example = id;
    answers.push_back(it == object.end() ? kUnanswered : it->get<std::string>());
  }
  if (unanswered > 0) {
    log::warn("{}: no answer to {} of the {} questions of {}, such as \"{}\"; they score 0", file,
              unanswered, ids.size(), task.file(), example);
  }
  return answers;
}

}  // namespace

std::vector<std::string> read_answers(const std::filesystem::path& path, const Task& task) {
  const std::string file = path == "-" ? "standard input" : path.string();
  const size_t wanted = task.pairs().size();
  Lines lines = read_lines(path);
  const char* field = lines.empty() ? nullptr : answer_field(lines[0]);
  if (field != nullptr) {
    take_field(lines, field, path);
  } else if (!task.ids().empty()) {
    const auto first =
        std::find_if(lines.begin(), lines.end(), [](const auto& line) { return !is_blank(line); });
    if (first != lines.end() && (*first)[first->find_first_not_of(" \t\r\n\v\f")] == '{') {
      JsonFault fault;
      int64_t line = 0;
      const json object = parse_by_id(lines, file, fault, line);
      if (object.is_object()) return answers_by_id(object, file, task);
      // An answer may begin with a brace too, but then there are as many lines as questions.
      SW_CHECK(lines.size() == wanted, corrupt,
               "{}: malformed JSON: {}; expected one object {{\"id\": \"answer\", ...}}, or a line "
               "for each of {} question(s)",
               line_place(path, line), fault.what, wanted);
    }
  }
  SW_CHECK(lines.size() == wanted, corrupt,
           "{}: {} answers for the {} examples of {}; expected one each, in their order (--cast "
           "prints them)",
           file, lines.size(), wanted, task.file());
  if (field == nullptr) warn_of_other_objects(lines, file, task);
  return lines;
}

}  // namespace sw
