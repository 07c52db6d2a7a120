// Completion scripts for bash, zsh and fish.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "libswitch/base/config.h"
#include "libswitch/base/error.h"
#include "libswitch/base/options_help.h"

namespace sw {
namespace {

std::vector<std::string> words_of(const Option& option) {
  return option.is_preset() ? preset_names() : option.choices();
}

// In single quotes; `doubled` quotes as '\'' in bash and zsh, and \' in fish.
std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}
std::string shell_quoted(const std::string& text) {
  return "'" + replace_all(text, "'", "'\\''") + "'";
}
std::string fish_quoted(const std::string& text) {
  return "'" + replace_all(replace_all(text, "\\", "\\\\"), "'", "\\'") + "'";
}

std::string names_pattern(const Option& option) {
  std::string text = "--" + option.name();
  if (option.short_name()) text = fmt::format("-{}|{}", option.short_name(), text);
  return text;
}

bool negatable(const Option& option) { return option.is_flag() && option.default_text() == "true"; }

bool takes_value(const Option& option) {
  return !option.is_flag() && option.implicit_value().empty();
}

std::string bash_script(const OptionRegistry& registry, const ToolDescription& tool) {
  const std::string function = "_" + replace_all(tool.name, "-", "_");
  std::string cases, flags;
  for (const auto& option : registry.options()) {
    flags += (flags.empty() ? "--" : " --") + option->name();
    if (negatable(*option)) flags += " --no-" + option->name();
    if (option->is_flag() || option->is_counter()) continue;
    const auto words = words_of(*option);
    std::string action = "return";
    if (!words.empty()) {
      const char* files = option->is_preset() ? "; compgen -f -X '!*.toml' -- \"$cur\"" : "";
      action = fmt::format("mapfile -t COMPREPLY < <(compgen -W {} -- \"$cur\"{}); return",
                           shell_quoted(fmt::format("{}", fmt::join(words, " "))), files);
    } else if (option->takes_files()) {
      action = "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return";
    }
    if (!option->implicit_value().empty()) {
      // The value follows '=' only.
      cases += fmt::format("    --{}) if $equals; then {}; fi ;;\n", option->name(), action);
    } else {
      cases += fmt::format("    {}) {} ;;\n", names_pattern(*option), action);
    }
  }
  return fmt::format(R"(# bash completion of {0}
{1}() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} equals=false
  # bash cuts --name=value into three words
  if [[ $cur == = ]]; then cur=; equals=true
  elif [[ $prev == = ]]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; equals=true
  fi
  case $prev in
{2}  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W {3} -- "$cur")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}}
complete -F {1} {0}
)",
                     tool.name, function, cases, shell_quoted(flags));
}

// The text of a description inside [...] of an _arguments specification.
std::string zsh_text(std::string text) {
  for (const char* c : {"\\", "[", "]", ":"}) text = replace_all(text, c, std::string("\\") + c);
  return text;
}

std::string zsh_script(const OptionRegistry& registry, const ToolDescription& tool) {
  std::string specs;
  for (const auto& option : registry.options()) {
    std::string value;
    if (!option->is_flag() && !option->is_counter()) {
      const auto words = words_of(*option);
      std::string action = " ";
      if (option->is_preset()) {
        action = fmt::format("{{compadd -- {}; _files -g \"*.toml\"}}", fmt::join(words, " "));
      } else if (!words.empty()) {
        action = fmt::format("({})", fmt::join(words, " "));
      } else if (option->takes_files()) {
        action = "_files";
      }
      const std::string label = option->choices().empty() ? option->value_name() : option->name();
      value = fmt::format("{}:{}:{}", option->implicit_value().empty() ? "" : ":", zsh_text(label),
                          action);
    }
    const bool repeats = option->is_list() || option->is_counter();
    const std::string mark = takes_value(*option)                        ? "="
                             : option->is_flag() || option->is_counter() ? ""
                                                                         : "=-";
    const std::string help = "[" + zsh_text(option->help()) + "]";
    std::vector<std::string> names = {"--" + option->name() + mark};
    if (option->short_name()) {
      names.push_back(fmt::format("-{}{}", option->short_name(), takes_value(*option) ? "+" : ""));
    }
    for (const std::string& name : names) {
      specs += fmt::format("  {} \\\n", shell_quoted((repeats ? "*" : "") + name + help + value));
    }
    if (negatable(*option)) {
      specs += fmt::format("  {} \\\n", shell_quoted("--no-" + option->name() + help));
    }
  }
  return fmt::format("#compdef {}\n_arguments -s \\\n{}  '*:{}:_files'\n", tool.name, specs,
                     zsh_text(tool.positional_name.empty() ? "file" : tool.positional_name));
}

std::string fish_script(const OptionRegistry& registry, const ToolDescription& tool) {
  std::string text = fmt::format("# fish completion of {}\n", tool.name);
  for (const auto& option : registry.options()) {
    text += fmt::format("complete -c {} -l {}", tool.name, option->name());
    if (option->short_name()) text += fmt::format(" -s {}", option->short_name());
    if (takes_value(*option)) {
      const auto words = words_of(*option);
      if (!words.empty()) {
        const char* files = option->is_preset() ? " (__fish_complete_suffix .toml)" : "";
        text += " -x -a " + fish_quoted(fmt::format("{}{}", fmt::join(words, " "), files));
      } else {
        text += option->takes_files() ? " -r -F" : " -x";
      }
    }
    text += " -d " + fish_quoted(option->help()) + "\n";
    if (negatable(*option)) {
      text += fmt::format("complete -c {} -l no-{} -d {}\n", tool.name, option->name(),
                          fish_quoted("not: " + option->help()));
    }
  }
  return text;
}

}  // namespace

std::string completion_script(const OptionRegistry& registry, const ToolDescription& tool,
                              const std::string& shell) {
  if (shell == "bash") return bash_script(registry, tool);
  if (shell == "zsh") return zsh_script(registry, tool);
  if (shell == "fish") return fish_script(registry, tool);
  fail(ErrorKind::usage, "--completion: expected one of bash, zsh, fish, got '{}'", shell);
}

}  // namespace sw
