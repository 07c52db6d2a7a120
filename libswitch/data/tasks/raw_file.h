// Reads the files of tasks.
#pragma once

#include <filesystem>
#include <functional>

#include "libswitch/data/tasks/task_kind.h"

namespace sw {

/// Calls `take` for every raw example of the file: the lines of JSON lines, the elements of a JSON
/// list or of the list "data" (SQuAD) or "Data" (TriviaQA) of a JSON document, the rows of a table,
/// and the blocks of DPR's text. Which of them it is, the file's beginning tells. Blank lines are
/// passed over. Throws missing, and corrupt with file and line.
void read_raw_file(const std::filesystem::path& path, const TaskKind& kind,
                   const std::function<void(const RawRecord&)>& take);

}  // namespace sw
