// Answers made elsewhere.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sw {

/// The answers of a file or of standard input ("-"), one a line, an empty line being an empty
/// answer. When the first line is a JSON object with a string "prediction" (as sw-eval
/// --predictions writes it) or "text" (as sw-generate --json), so must be the others, and answers
/// are that field. Throws missing, and corrupt with file and line.
std::vector<std::string> read_answers(const std::filesystem::path& path);

}  // namespace sw
