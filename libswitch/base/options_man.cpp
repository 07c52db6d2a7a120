// The man page: man(7) macros from the registry.
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "libswitch/base/options_help.h"
#include "libswitch/base/version.h"

namespace sw {
namespace {

// Text that roff prints as it stands: no escapes, requests or typographic dashes.
std::string roff(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '.' || c == '\'') && (i == 0 || text[i - 1] == '\n')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '\'') {
      out += "\\(aq";
    } else {
      out += c;
    }
  }
  return out;
}

std::string quoted(const std::string& text) {
  std::string out = roff(text);
  for (size_t at = 0; (at = out.find('"', at)) != std::string::npos; at += 4) {
    out.replace(at, 1, "\\(dq");
  }
  return "\"" + out + "\"";
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

// Paragraphs, which empty lines separate, with .PP between them.
std::string paragraphs(const std::string& text) {
  std::string out;
  std::istringstream lines(text);
  bool gap = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.find_first_not_of(' ') == std::string::npos) {
      gap = true;
      continue;
    }
    if (gap && !out.empty()) out += ".PP\n";
    gap = false;
    out += roff(line.substr(line.find_first_not_of(' '))) + "\n";
  }
  return out;
}

std::string option_entry(const Option& option) {
  std::string head;
  if (option.short_name()) head = fmt::format("\\fB\\-{}\\fR, ", option.short_name());
  head += fmt::format("\\fB\\-\\-{}\\fR", roff(option.name()));
  if (const std::string value = option.value_name(); !value.empty()) {
    const bool implicit = !option.implicit_value().empty();
    head += fmt::format("{}\\fI{}\\fR{}", implicit ? "[=" : " ", roff(value), implicit ? "]" : "");
  }
  return fmt::format(".TP\n{}\n{}\n", head, roff(option_paragraph(option)));
}

}  // namespace

std::string man_page(const OptionRegistry& registry, const ToolDescription& tool) {
  std::string text = fmt::format(
      ".TH {} 1 \"\" {} {}\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.nf\n", quoted(upper(tool.name)),
      quoted(fmt::format("switch-transformers {}", version())), quoted("Switch Transformers"),
      roff(tool.name), roff(tool.summary));
  for (const std::string& line : tool.usage) {
    text += fmt::format("\\fB{}\\fR {}\n", roff(tool.name), roff(line));
  }
  text += ".fi\n";
  if (!tool.description.empty()) text += ".SH DESCRIPTION\n" + paragraphs(tool.description);
  text += ".SH OPTIONS\n" +
          roff(
              "Sizes take K, M, G, T (powers of 1000) and Ki, Mi, Gi, Ti (powers of 1024); times "
              "are like 1h30m; - is stdin or stdout.") +
          "\n";
  for (const OptionGroup& group : registry.groups()) {
    std::string section;
    for (const auto& option : registry.options()) {
      if (option->group() == group.name) section += option_entry(*option);
    }
    if (!section.empty()) text += fmt::format(".SS {}\n{}", quoted(group.title), section);
  }
  text += ".SH CONFIGURATION\n" +
          roff(
              "An option's key in a TOML file is its name with _ for -, at the top or in the "
              "section of its group. Values come, the weakest first, from the default, the "
              "preset, the files given with -c in order, the environment (SW_ and the key in "
              "capitals; lists separated by commas) and the command line.") +
          "\n.SS Sections\n";
  for (const OptionGroup& group : registry.groups()) {
    const bool used =
        std::any_of(registry.options().begin(), registry.options().end(), [&](const auto& option) {
          return option->group() == group.name && option->scope() == Scope::resolved;
        });
    if (!used) continue;
    text += fmt::format(".TP\n\\fB[{}]\\fR\n{}\n", roff(group.name), roff(group.title));
  }
  text += ".SH ENVIRONMENT\n";
  text += ".TP\n\\fBSW_PRESETS\\fR\nFolders of presets to search first, with : between them.\n";
  text += ".TP\n\\fBNO_COLOR\\fR\n" + roff("When set, no colour unless --color always.") + "\n";
  for (const EnvironmentNote& note : tool.environment) {
    text += fmt::format(".TP\n\\fB{}\\fR\n{}", note.name, paragraphs(note.meaning));
  }
  text += ".SH EXIT STATUS\n";
  std::vector<ExitNote> notes = {
      {0, "Done."},
      {2, "Usage: an option, a configuration or an argument is wrong."},
      {65, "Input is corrupt or does not fit."},
      {66, "Input is missing."},
      {69, "A device, launcher, processor feature or memory is not available."},
      {70, "A mistake in the program."},
      {73, "Output cannot be created."},
      {74, "Reading or writing failed, or the disk is full."},
  };
  notes.insert(notes.end(), tool.exit_notes.begin(), tool.exit_notes.end());
  std::stable_sort(notes.begin(), notes.end(),
                   [](const ExitNote& a, const ExitNote& b) { return a.code < b.code; });
  for (const ExitNote& note : notes) {
    text += fmt::format(".TP\n\\fB{}\\fR\n{}\n", note.code, roff(note.meaning));
  }
  if (!tool.examples.empty()) {
    text += ".SH EXAMPLES\n";
    for (const std::string& example : tool.examples) {
      text += fmt::format(".PP\n.nf\n{}\n.fi\n", roff(example));
    }
  }
  if (!tool.see_also.empty()) {
    text += ".SH SEE ALSO\n";
    for (size_t i = 0; i < tool.see_also.size(); ++i) {
      const std::string& page = tool.see_also[i];
      const size_t open = std::min(page.find('('), page.size());
      text += fmt::format(".BR {} {}{}\n", roff(page.substr(0, open)), page.substr(open),
                          i + 1 < tool.see_also.size() ? "," : "");
    }
  }
  return text;
}

}  // namespace sw
