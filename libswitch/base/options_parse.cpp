// Command line (through cxxopts) and environment.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cxxopts.hpp>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/options.h"

namespace sw {
namespace {

// The option word in the text of a cxxopts exception, which stands in typographic quotes.
std::string quoted_word(const std::string& text) {
  const std::string open = "\u2018", close = "\u2019";
  const size_t begin = text.find(open);
  const size_t end = text.rfind(close);
  if (begin == std::string::npos || end == std::string::npos) return text;
  return text.substr(begin + open.size(), end - begin - open.size());
}

std::string dashed(const std::string& name) { return (name.size() == 1 ? "-" : "--") + name; }

}  // namespace

std::vector<std::string> OptionRegistry::parse_command_line(int argc, const char* const* argv) {
  // Every value reaches us as text, in order; types, ranges and lists are the registry's matter.
  cxxopts::Options parser(argc > 0 ? argv[0] : "sw");
  for (const auto& option : options_) {
    auto value = cxxopts::value<std::string>();
    if (option->is_flag()) value->implicit_value("true");
    if (!option->implicit_value().empty()) value->implicit_value(option->implicit_value());
    const std::string short_name = option->short_name() ? std::string(1, option->short_name()) : "";
    parser.add_option("", short_name, option->name(), "", value, "");
    if (option->is_flag() && option->scope() != Scope::command_line) {
      parser.add_option("", "", "no-" + option->name(), "",
                        cxxopts::value<std::string>()->implicit_value("true"), "");
    }
  }
  cxxopts::ParseResult result;
  try {
    result = parser.parse(argc, argv);
  } catch (const cxxopts::exceptions::no_such_option& e) {
    const std::string flag = dashed(quoted_word(e.what()));
    fail(ErrorKind::usage, "unknown option '{}'{}", flag,
         flag.size() > 2 ? hint_for_flag(flag) : std::string());
  } catch (const cxxopts::exceptions::missing_argument& e) {
    const std::string name = quoted_word(e.what());
    const Option* option = find(name);
    for (const auto& candidate : options_) {
      if (name == std::string(1, candidate->short_name())) option = candidate.get();
    }
    fail(ErrorKind::usage, "{}: expected {}, got nothing", dashed(name),
         option ? option->expectation() : "a value");
  } catch (const cxxopts::exceptions::parsing& e) {
    fail(ErrorKind::usage, "unknown option '{}'{}", quoted_word(e.what()),
         hint_for_flag(quoted_word(e.what())));
  }

  struct Collected {
    Option* option;
    OptionValues values;
    std::string where;
  };
  std::vector<Collected> collected;
  const auto collect = [&](Option* option, OptionScalar value, const std::string& where) {
    for (Collected& c : collected) {
      if (c.option != option) continue;
      if (option->is_counter()) {
        value = std::get<int64_t>(c.values.at(0)) + std::get<int64_t>(value);
      }
      if (!option->is_list()) c.values.clear();
      c.values.push_back(std::move(value));
      c.where = where;
      return;
    }
    collected.push_back({option, {std::move(value)}, where});
  };
  for (const cxxopts::KeyValue& argument : result.arguments()) {
    Option* option = find(argument.key());
    std::string text = argument.value();
    std::string where = "--" + argument.key();
    if (option == nullptr) {  // --no-NAME
      option = find(argument.key().substr(3));
      const bool negated = std::get<bool>(option->parse(text, where));
      collect(option, !negated, where);
      continue;
    }
    if (!option->is_flag() && text.starts_with("--") && find(text.substr(2)) != nullptr) {
      fail(ErrorKind::usage, "{}: expected {}, got the option '{}'", where, option->expectation(),
           text);
    }
    const bool wordless = option->kind() == ValueKind::text || option->kind() == ValueKind::path;
    if (wordless && text.empty()) {  // mostly of a shell variable that is not set
      fail(ErrorKind::usage, "{}: expected {}, got an empty text", where, option->expectation());
    }
    OptionScalar value = option->parse(text, where);
    collect(option, value, where);
    if (option->is_assignment()) {
      const size_t equals = text.find('=');
      if (equals == std::string::npos || equals == 0) {
        fail(ErrorKind::usage, "{}: expected KEY=VALUE, got '{}'", where, text);
      }
      where += " " + text.substr(0, equals);
      Option& assigned = option_for_key(text.substr(0, equals), where);
      collect(&assigned, assigned.parse(text.substr(equals + 1), where), where);
    }
  }
  for (Collected& c : collected) c.option->assign(c.values, Source::flag, c.where);
  return result.unmatched();
}

void OptionRegistry::apply_environment() {
  for (const auto& option : options_) {
    if (option->scope() == Scope::command_line) continue;
    const std::string variable = option->environment_name();
    const char* text = std::getenv(variable.c_str());
    if (text == nullptr || *text == 0) continue;
    OptionValues values;
    if (option->is_list()) {
      std::string rest = text;
      for (size_t comma; (comma = rest.find(',')) != std::string::npos;) {
        values.push_back(option->parse(rest.substr(0, comma), variable));
        rest = rest.substr(comma + 1);
      }
      values.push_back(option->parse(rest, variable));
    } else {
      values.push_back(option->parse(text, variable));
    }
    option->assign(values, Source::environment, variable);
  }
}

std::vector<std::string> OptionRegistry::environment_slips() const {
  std::vector<std::string> names;
  for (const auto& option : options_) {
    if (option->scope() != Scope::command_line) names.push_back(option->environment_name());
  }
  std::vector<std::string> slips;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    // The folders of presets are read without an option (base/config.h).
    if (!name.starts_with("SW_") || name == "SW_PRESETS" ||
        std::find(names.begin(), names.end(), name) != names.end()) {
      continue;
    }
    // Other tools' variables are no slips: one or two letters are.
    for (const std::string& known : names) {
      if (edit_distance(name, known) > (known.size() > 8 ? 2 : 1)) continue;
      slips.push_back(fmt::format("{} is no option's variable; did you mean {}?", name, known));
      break;
    }
  }
  return slips;
}

}  // namespace sw
