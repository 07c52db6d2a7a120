// Configuration files: TOML (through toml++) in and out of the registry.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "libswitch/base/config.h"
#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/options.h"
#include "libswitch/base/units.h"

namespace sw {

class TomlReader {
 public:
  TomlReader(OptionRegistry& registry, std::string name, Source source, UnknownKeys unknown)
      : registry_(registry), name_(std::move(name)), source_(source), unknown_(unknown) {}

  void read(std::string_view text) {
    toml::table root;
    try {
      root = toml::parse(text, name_);
    } catch (const toml::parse_error& e) {
      fail(ErrorKind::usage, "{}:{}: not TOML: {}", name_, e.source().begin.line, e.description());
    }
    read_base(root);
    for (const auto& [key, node] : root) {
      const std::string section(key.str());
      if (!node.is_table()) {
        read_value(section, "", key, node);
        continue;
      }
      if (!is_group(section)) {
        refuse_section(section, key);
        continue;
      }
      for (const auto& [inner_key, inner] : *node.as_table()) {
        read_value(std::string(inner_key.str()), section, inner_key, inner);
      }
    }
  }

 private:
  // A preset may build on another, whose values it overrides.
  void read_base(toml::table& root) {
    const auto* base = root["extends"].as_string();
    if (source_ != Source::preset || base == nullptr) return;
    registry_.apply_preset(base->get(), fmt::format("{}:{}", name_, base->source().begin.line));
    root.erase("extends");
  }

  std::string where(const toml::key& key) const {
    return fmt::format("{}:{}", name_, key.source().begin.line);
  }

  bool is_group(const std::string& section) const {
    for (const OptionGroup& group : registry_.groups()) {
      if (group.name == section) return true;
    }
    return false;
  }

  void refuse_section(const std::string& section, const toml::key& key) const {
    if (unknown_ == UnknownKeys::ignore) return;
    std::vector<std::string> names;
    for (const OptionGroup& group : registry_.groups()) names.push_back(group.name);
    const std::string hint = nearest_hint(section, names);
    if (unknown_ == UnknownKeys::skip_sections && hint.empty()) return;
    fail(ErrorKind::usage, "{}: unknown section [{}]{}", where(key), section, hint);
  }

  void read_value(const std::string& name, const std::string& section, const toml::key& key,
                  const toml::node& node) {
    // A few words of explanation are welcome in any file.
    if (section.empty() && name == "description" && node.is_string()) return;
    if (unknown_ == UnknownKeys::ignore && registry_.find(name) == nullptr) return;
    Option& option =
        registry_.option_for_key(section.empty() ? name : section + "." + name, where(key));
    const std::string place = where(key);
    const auto [seen, fresh] = lines_.emplace(&option, key.source().begin.line);
    if (!fresh) {
      fail(ErrorKind::usage, "{}: {} is set twice, here and in line {}", place, option.key(),
           seen->second);
    }
    const std::string subject = place + ": " + option.key();
    OptionValues values;
    if (const toml::array* array = node.as_array()) {
      if (!option.is_list()) {
        fail(ErrorKind::usage, "{}: expected {}, got an array", subject, option.expectation());
      }
      for (const toml::node& element : *array) {
        values.push_back(read_scalar(option, element, subject));
      }
    } else {
      values.push_back(read_scalar(option, node, subject));
    }
    option.assign(values, source_, place);
  }

  static OptionScalar read_scalar(const Option& option, const toml::node& node,
                                  const std::string& subject) {
    if (const auto* v = node.as_boolean()) return option.accept(v->get(), subject);
    if (const auto* v = node.as_integer()) return option.accept(v->get(), subject);
    if (const auto* v = node.as_floating_point()) return option.accept(v->get(), subject);
    if (const auto* v = node.as_string()) return option.accept(v->get(), subject);
    const char* kind = node.is_table() ? "a table" : node.is_array() ? "an array" : "a date";
    fail(ErrorKind::usage, "{}: expected {}, got {}", subject, option.expectation(), kind);
  }

  OptionRegistry& registry_;
  std::string name_;
  Source source_;
  UnknownKeys unknown_;
  std::map<const Option*, unsigned> lines_;
};

void OptionRegistry::apply_toml(std::string_view text, const std::string& name, Source source,
                                UnknownKeys unknown) {
  SW_CHECK(text.find('\0') == text.npos, usage, "{}: not TOML: it holds a byte 0", name);
  TomlReader(*this, name, source, unknown).read(text);
}

void OptionRegistry::apply_toml_file(const std::string& path, Source source, UnknownKeys unknown) {
  constexpr uint64_t kLargest = 16 << 20;  // a configuration is small: this is some other file
  apply_toml(read_file(path, kLargest), path, source, unknown);
}

namespace {

std::string toml_scalar(const Option& option, const OptionScalar& value) {
  const auto quoted = [&](const std::string& text) {
    // One line in double quotes whatever the text holds.
    constexpr auto kFlags =
        toml::toml_formatter::default_flags &
        ~(toml::format_flags::allow_literal_strings | toml::format_flags::allow_multi_line_strings);
    const toml::value<std::string> node(text);
    std::ostringstream stream;
    stream << toml::toml_formatter(node, kFlags);
    // A path may hold bytes that are not UTF-8, which TOML cannot.
    std::optional<std::string> back;
    try {
      back = toml::parse("x = " + stream.str())["x"].value<std::string>();
    } catch (const toml::parse_error&) {
    }
    SW_CHECK(back == text, usage, "--{}: '{}' cannot be written to a configuration: not UTF-8",
             option.name(), text);
    return stream.str();
  };
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* integer = std::get_if<int64_t>(&value)) return fmt::format("{}", *integer);
  const double number = std::get<double>(value);
  if (option.kind() == ValueKind::duration) return quoted(format_duration(number));
  std::string text = fmt::format("{}", number);  // the shortest that reads back equal
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string toml_value(const Option& option) {
  const OptionValues values = option.values();
  if (!option.is_list()) return toml_scalar(option, values.at(0));
  std::string text = "[";
  for (const OptionScalar& value : values) {
    text += (text.size() > 1 ? ", " : "") + toml_scalar(option, value);
  }
  return text + "]";
}

}  // namespace

std::string OptionRegistry::to_toml(ConfigDetail detail) const {
  std::string text;
  for (const OptionGroup& group : groups_) {
    std::string section;
    for (const auto& option : options_) {
      if (option->group() != group.name || option->scope() != Scope::resolved) continue;
      const bool is_default = option->origin().source == Source::fallback;
      if (detail == ConfigDetail::changed && is_default) continue;
      if (is_default && option->is_required()) {
        section += fmt::format("# {} = ...  # required\n", option->key());
        continue;
      }
      if (!option->is_list() && option->values().empty()) continue;
      // A preset in a file of its own may move; its values are all here.
      const bool aside = option->is_preset() && !option->values().empty() &&
                         is_preset_path(option->to_text(option->values()[0]));
      section += fmt::format("{}{} = {}", aside ? "# " : "", option->key(), toml_value(*option));
      if (detail == ConfigDetail::origins) section += "  # " + option->origin().where;
      section += '\n';
    }
    if (section.empty()) continue;
    text += fmt::format("{}[{}]\n{}", text.empty() ? "" : "\n", group.name, section);
  }
  return text;
}

}  // namespace sw
