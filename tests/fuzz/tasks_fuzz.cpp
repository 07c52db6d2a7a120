// Files of tasks: the first byte says of which task, the rest is the file, and what follows the
// byte 0x1E a file of answers. What is read is judged as well, its own targets and a few other
// texts being the answers where there is no file of them.
#include "libswitch/data/tasks/task.h"

#include "libswitch/data/tasks/answers_file.h"
#include "libswitch/data/utf8.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw;
  using namespace sw::fuzz;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  // Archives are for json_lines_fuzz.cpp: a small one can hold gigabytes.
  const auto is_archive = [](std::string_view file) {
    return file.starts_with("\x1f\x8b") ||
           (file.size() > 3 && (file[3] == '\xfd' || file[3] == '\x18'));
  };
  static const std::vector<std::string> names = task_names();
  const size_t kind = data[0] % (names.size() + 1);
  const std::string prefix = kind < names.size() ? names[kind] + ":" : "";
  const size_t end = std::min(text.find('\x1e'), text.size());
  const bool answered = end < text.size();
  const std::string_view given = text.substr(0, end);
  const std::string_view answers_given = answered ? text.substr(end + 1) : std::string_view();
  if (is_archive(given) || is_archive(answers_given)) return 0;
  const MemoryFile file(given), answers_file(answers_given);
  const auto read = [&] {
    const auto task = Task::open(prefix + file.path());
    std::vector<std::string> answers;
    for (const TextPair& pair : task->pairs()) {
      if (find_invalid_utf8(pair.input) >= 0) found("an input that is not UTF-8");
      if (find_invalid_utf8(pair.target) >= 0) found("a target that is not UTF-8");
      const size_t n = answers.size();
      answers.push_back(n % 3 == 0 ? pair.target : n % 3 == 1 ? pair.input : "");
    }
    if (answered) answers = read_answers(answers_file.path(), *task);
    for (const AnswerSource source : {AnswerSource::model, AnswerSource::elsewhere}) {
      for (const auto& [name, percent] : task->metrics(answers, source)) {
        if (!(percent >= -100.001 && percent <= 100.001)) found(name + " outside of its range");
      }
    }
    (void)task->training_pairs();
  };
  accepts(size, read);
  return 0;
}
