// Texts made from the registry: --help, --help-all, the man page, completion of three shells.
#pragma once

#include <string>
#include <vector>

#include "libswitch/base/options.h"

namespace sw {

/// An exit code that a tool has beyond those of every tool.
struct ExitNote {
  int code;
  std::string meaning;
};

/// An environment variable that is no option.
struct EnvironmentNote {
  std::string name, meaning;
};

/// What a tool says of itself. Only name, summary and usage are indispensable.
struct ToolDescription {
  std::string name;                // "sw-tokenize"
  std::string summary;             // one line without a full stop: "text in, token shards out"
  std::vector<std::string> usage;  // lines after the name: "[OPTION...] --vocab V.model [FILE...]"
  std::vector<std::string> examples;  // two command lines, at least one with a pipe
  std::string description;            // paragraphs for the man page, separated by empty lines
  std::string positional_name;        // "FILE", in messages; empty: takes no arguments
  int min_positionals = 0;
  int max_positionals = 0;                   // -1: any number
  bool prints_results = false;               // takes --json
  bool ignores_sigpipe = false;              // a closed stdout must not end the run
  std::string memory_hint;                   // what to lower when memory is out: "lower --batch"
  std::vector<ExitNote> exit_notes;          // codes of its own
  std::vector<EnvironmentNote> environment;  // variables of its own
  std::vector<std::string> see_also;         // "sw-pretrain(1)", "swt(5)"
};

/// At most 24 lines of 80 columns: usage, summary, the plain options (as many as fit), examples.
std::string short_help(const OptionRegistry& registry, const ToolDescription& tool);

/// Every option with details, accepted values, default and environment variable, in 80 columns.
std::string full_help(const OptionRegistry& registry, const ToolDescription& tool);

/// The man page in roff (man(7) macros).
std::string man_page(const OptionRegistry& registry, const ToolDescription& tool);

/// A completion script for "bash", "zsh" or "fish"; throws usage for another shell.
std::string completion_script(const OptionRegistry& registry, const ToolDescription& tool,
                              const std::string& shell);

/// All that is known of an option, as sentences.
std::string option_paragraph(const Option& option);
/// Columns that UTF-8 `text` takes (one a character).
int display_width(const std::string& text);
/// Words of `text` in lines of at most `width` columns.
std::vector<std::string> wrap_text(const std::string& text, int width);

}  // namespace sw
