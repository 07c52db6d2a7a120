// Answers made elsewhere.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "libswitch/data/tasks/task.h"

namespace sw {

/// One answer to each pair of `task`, in their order, from a file or standard input ("-"):
///
///   - a line an answer, an empty line being an empty one;
///   - JSON lines: where the first line is an object with a string "prediction" (as sw-eval
///     --predictions writes it) or "text" (as sw-generate --json), so must be the others;
///   - where the questions have ids, one JSON object {"id": "answer", ...}, as the programs take it
///     that SQuAD and TriviaQA are judged with. As there, a question that it does not answer scores
///     0 and ids of no question are passed over; warnings count them.
///
/// Throws missing, and corrupt with file and line or id: another number of answers, ids of which
/// none is of a question or one is given twice, answers that are no text.
std::vector<std::string> read_answers(const std::filesystem::path& path, const Task& task);

}  // namespace sw
