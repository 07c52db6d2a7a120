#include "libswitch/base/options_help.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>

namespace sw {
namespace {

constexpr int kColumns = 80;
constexpr int kLines = 24;
constexpr int kWidestLeft = 30;  // of the column that holds the options' names

std::string signature(const Option& option, bool align) {
  std::string text = option.short_name() ? fmt::format("-{}, ", option.short_name())
                                         : std::string(align ? "    " : "");
  text += "--" + option.name();
  const std::string value = option.value_name();
  if (value.empty()) return text;
  return text + (option.implicit_value().empty() ? " " + value : "[=" + value + "]");
}

// The signature with as many choices as leave room for the help.
std::string brief_signature(const Option& option) {
  constexpr int kWidest = 46;
  const std::string whole = signature(option, true);
  if (display_width(whole) <= kWidest || option.choices().empty()) return whole;
  std::string text = whole.substr(0, whole.size() - option.value_name().size());
  for (const std::string& word : option.choices()) {
    if (display_width(text) + display_width(word) + 2 > kWidest) break;
    text += word + "|";
  }
  return text + "…";
}

std::string pad(const std::string& text, int width) {
  return text + std::string(static_cast<size_t>(std::max(0, width - display_width(text))), ' ');
}

// `text` in at most `width` columns, cut between words.
std::string cut(const std::string& text, int width) {
  if (display_width(text) <= width) return text;
  if (width < 2) return "";
  return wrap_text(text, width - 2)[0] + " …";
}

std::string brief_line(const Option& option, int left) {
  const std::string head = "  " + pad(brief_signature(option), left) + "  ";
  const int room = kColumns - display_width(head);
  std::string note;
  if (option.is_required()) {
    note = " (required)";
  } else if (!option.default_text().empty()) {
    note = fmt::format(" (default {})", option.default_text());
  }
  if (display_width(option.help() + note) <= room) return head + option.help() + note;
  return head + cut(option.help(), room);
}

bool is_common(const Option& option) { return option.group() == "common"; }

// As many of `options` as there is room for: those that a call must have, then some of every group
// in turn. In their order.
std::vector<const Option*> choose(const std::vector<const Option*>& options, size_t room) {
  if (options.size() <= room) return options;
  std::map<const Option*, std::pair<size_t, size_t>> urgency;  // turn, place
  std::map<std::string, size_t> turns;
  for (size_t i = 0; i < options.size(); ++i) {
    const bool must = options[i]->is_required() || options[i]->is_preset();
    urgency[options[i]] = {must ? 0 : ++turns[options[i]->group()], i};
  }
  std::vector<const Option*> chosen = options;
  std::sort(chosen.begin(), chosen.end(),
            [&](const Option* a, const Option* b) { return urgency[a] < urgency[b]; });
  chosen.resize(room);
  std::sort(chosen.begin(), chosen.end(), [&](const Option* a, const Option* b) {
    return urgency[a].second < urgency[b].second;
  });
  return chosen;
}

// The usage with long lines broken, the rest of a line set in.
std::string usage_lines(const ToolDescription& tool) {
  std::string text;
  for (const std::string& usage : tool.usage) {
    std::string head = (text.empty() ? "Usage: " : "       ") + tool.name + " ";
    const int indent = display_width(head);
    for (const std::string& line : wrap_text(usage, kColumns - indent)) {
      text += head + line + "\n";
      head = std::string(static_cast<size_t>(indent), ' ');
    }
  }
  return text;
}

}  // namespace

int display_width(const std::string& text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::vector<std::string> wrap_text(const std::string& text, int width) {
  std::vector<std::string> lines(1);
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    std::string& line = lines.back();
    if (line.empty()) {
      line = word;
    } else if (display_width(line) + 1 + display_width(word) <= width) {
      line += " " + word;
    } else {
      lines.push_back(word);
    }
  }
  return lines;
}

std::string short_help(const OptionRegistry& registry, const ToolDescription& tool) {
  std::vector<const Option*> shown;
  int hidden = 0;
  for (const auto& option : registry.options()) {
    if (is_common(*option)) continue;
    if (option->is_advanced()) {
      ++hidden;
    } else {
      shown.push_back(option.get());
    }
  }
  std::string text = usage_lines(tool);
  const int frame = static_cast<int>(std::count(text.begin(), text.end(), '\n')) + 2 + 2 +
                    (tool.examples.empty() ? 0 : 2 + static_cast<int>(tool.examples.size()));
  const int room = std::max(0, kLines - frame);
  hidden += std::max(0, static_cast<int>(shown.size()) - room);
  shown = choose(shown, static_cast<size_t>(room));
  int left = 0;
  for (const Option* option : shown) {
    const int width = display_width(brief_signature(*option));
    if (width <= kWidestLeft) left = std::max(left, width);
  }
  text += cut(tool.summary, kColumns) + "\n\n";
  for (const Option* option : shown) text += brief_line(*option, left) + "\n";
  if (!shown.empty()) text += "\n";
  text += fmt::format("Also -c FILE.toml, --print-config, --dry-run, -q, -v; --help-all{}\n",
                      hidden > 0 ? fmt::format(" lists {} more", hidden) : "");
  if (!tool.examples.empty()) {
    text += "\nExamples:\n";
    for (const std::string& example : tool.examples) text += "  " + example + "\n";
  }
  return text;
}

std::string full_help(const OptionRegistry& registry, const ToolDescription& tool) {
  std::string text = usage_lines(tool) + tool.summary + "\n";
  for (const OptionGroup& group : registry.groups()) {
    std::string section;
    for (const auto& option : registry.options()) {
      if (option->group() != group.name) continue;
      section += "  " + signature(*option, false) + "\n";
      for (const std::string& line : wrap_text(option_paragraph(*option), kColumns - 8)) {
        section += "        " + line + "\n";
      }
    }
    if (section.empty()) continue;
    const bool in_file = group.name != "common";
    text += fmt::format("\n{}{}:\n{}", group.title,
                        in_file ? fmt::format(" ([{}] in a file)", group.name) : "", section);
  }
  text +=
      "\nSizes take K, M, G, T (powers of 1000) and Ki, Mi, Gi, Ti (of 1024); times are\n"
      "like 1h30m. Precedence: default < preset < -c FILE.toml < SW_* < flag.\n";
  if (!tool.examples.empty()) {
    text += "\nExamples:\n";
    for (const std::string& example : tool.examples) text += "  " + example + "\n";
  }
  return text;
}

std::string option_paragraph(const Option& option) {
  std::string text = option.help();
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  if (!text.empty()) text += ".";
  if (!option.details().empty()) text += " " + option.details();
  if (option.is_list()) text += " May be repeated.";
  const std::string expected = option.expectation();
  const bool obvious = option.is_flag() || option.is_counter() ||
                       option.kind() == ValueKind::path || expected == "a text" ||
                       expected == option.value_name() || !option.choices().empty();
  if (!obvious) text += fmt::format(" Takes {}.", expected);
  if (option.is_required()) {
    text += " Required.";
  } else if (!option.default_text().empty() && !option.is_counter()) {
    text += fmt::format(" Default: {}.", option.default_text());
  }
  if (option.is_flag() && option.default_text() == "true") {
    text += fmt::format(" --no-{} turns it off.", option.name());
  }
  if (option.scope() != Scope::command_line)
    text += " Environment: " + option.environment_name() + ".";
  return text;
}

}  // namespace sw
