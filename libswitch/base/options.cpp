#include "libswitch/base/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "libswitch/base/config.h"
#include "libswitch/base/error.h"
#include "libswitch/base/units.h"

namespace sw {
namespace {

std::string bound_text(long double bound, ValueKind kind) {
  if (kind == ValueKind::duration) return format_duration(static_cast<double>(bound));
  if (bound == std::floor(bound) && std::abs(bound) < 1e19L) return fmt::format("{:.0f}", bound);
  return fmt::format("{}", static_cast<double>(bound));
}

// "of at least 1", "between 1 and 8", "above 0 and at most 1", or "".
std::string bounds_text(long double low, bool low_open, long double high, bool high_open,
                        ValueKind kind) {
  const bool has_low = std::isfinite(low), has_high = std::isfinite(high);
  const std::string l = bound_text(low, kind), h = bound_text(high, kind);
  if (has_low && has_high && !low_open && !high_open) return fmt::format("between {} and {}", l, h);
  std::string text;
  if (has_low) text = low_open ? "above " + l : "of at least " + l;
  if (has_low && has_high) text += " and ";
  if (has_high) text += high_open ? "below " + h : (has_low ? "at most " : "of at most ") + h;
  return text;
}

std::string kind_text(ValueKind kind) {
  switch (kind) {
    case ValueKind::flag: return "true or false";
    case ValueKind::integer: return "an integer";
    case ValueKind::number: return "a number";
    case ValueKind::text: return "a text";
    case ValueKind::path: return "a path";
    case ValueKind::duration: return "a duration such as 1h30m";
  }
  return "a value";
}

std::string problem_text(UnitProblem problem) {
  if (problem == UnitProblem::fraction) return ", which is not whole";
  if (problem == UnitProblem::overflow) return ", which does not fit in 64 bits";
  return "";
}

long double magnitude(const OptionScalar& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<long double>(*i);
  return std::get<double>(value);
}

}  // namespace

Option::Option(std::string name, std::string group, OptionBinding binding)
    : name_(std::move(name)),
      key_(name_),
      group_(std::move(group)),
      binding_(std::move(binding)),
      default_(binding_.read()),
      low_(-std::numeric_limits<long double>::infinity()),
      high_(std::numeric_limits<long double>::infinity()) {
  std::replace(key_.begin(), key_.end(), '-', '_');
  if (binding_.low == 0) low_ = 0;  // an unsigned field: worth saying
}

Option& Option::help(std::string text) { return help_ = std::move(text), *this; }
Option& Option::details(std::string text) { return details_ = std::move(text), *this; }
Option& Option::short_name(char letter) { return short_name_ = letter, *this; }
Option& Option::value_name(std::string text) { return value_name_ = std::move(text), *this; }
Option& Option::unit(std::string text) { return unit_ = std::move(text), *this; }
Option& Option::at_least(long double bound) { return low_ = bound, low_open_ = false, *this; }
Option& Option::at_most(long double bound) { return high_ = bound, high_open_ = false, *this; }
Option& Option::above(long double bound) { return low_ = bound, low_open_ = true, *this; }
Option& Option::below(long double bound) { return high_ = bound, high_open_ = true, *this; }
Option& Option::choices(std::vector<std::string> words) {
  return choices_ = std::move(words), *this;
}
Option& Option::check(std::string expected, std::function<bool(const OptionScalar&)> holds) {
  check_expected_ = std::move(expected);
  check_ = std::move(holds);
  return *this;
}
Option& Option::default_text(std::string text) {
  default_text_ = std::move(text);
  has_default_text_ = true;
  return *this;
}
Option& Option::advanced() { return advanced_ = true, *this; }
Option& Option::required() { return required_ = true, *this; }
Option& Option::scope(Scope scope) { return scope_ = scope, *this; }
Option& Option::names_preset() { return preset_ = true, *this; }
Option& Option::implicit_value(std::string text) { return implicit_ = std::move(text), *this; }
Option& Option::counts() { return counter_ = true, implicit_ = "1", *this; }
Option& Option::completes_files() { return files_ = true, *this; }
Option& Option::assigns_options() { return assignment_ = true, *this; }

std::string Option::environment_name() const {
  std::string text = "SW_" + key_;
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

std::string Option::value_name() const {
  if (counter_) return "";
  if (!value_name_.empty()) return value_name_;
  if (!choices_.empty()) return fmt::format("{}", fmt::join(choices_, "|"));
  switch (kind()) {
    case ValueKind::flag: return "";
    case ValueKind::integer: return "N";
    case ValueKind::number: return "X";
    case ValueKind::text: return "TEXT";
    case ValueKind::path: return "FILE";
    case ValueKind::duration: return "TIME";
  }
  return "";
}

std::string Option::to_text(const OptionScalar& value) const {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* integer = std::get_if<int64_t>(&value)) return fmt::format("{}", *integer);
  const double number = std::get<double>(value);
  return kind() == ValueKind::duration ? format_duration(number) : fmt::format("{}", number);
}

std::string Option::default_text() const {
  if (has_default_text_) return default_text_;
  if (is_flag() && !default_.empty() && !std::get<bool>(default_[0])) return "";
  std::string text;
  for (const OptionScalar& value : default_) text += (text.empty() ? "" : ",") + to_text(value);
  return text;
}

std::string Option::expectation() const {
  std::string text;
  if (!choices_.empty()) {
    text = fmt::format("one of {}", fmt::join(choices_, ", "));
  } else {
    text = kind_text(kind());
    if (kind() == ValueKind::text && !value_name_.empty()) text = value_name_;
    const bool plain_duration =
        kind() == ValueKind::duration && low_ == 0 && !low_open_ && std::isinf(high_);
    const std::string bounds = bounds_text(low_, low_open_, high_, high_open_, kind());
    if (!bounds.empty() && !plain_duration) text += " " + bounds;
  }
  if (!check_expected_.empty()) {
    text = kind() == ValueKind::text || kind() == ValueKind::path ? check_expected_
                                                                  : text + ", " + check_expected_;
  }
  if (!unit_.empty()) text += " (" + unit_ + ")";
  return text;
}

OptionScalar Option::parse(const std::string& text, const std::string& where) const {
  const auto refuse = [&](UnitProblem problem) {
    fail(ErrorKind::usage, "{}: expected {}, got '{}'{}", where, expectation(), text,
         problem_text(problem));
  };
  OptionScalar value;
  switch (kind()) {
    case ValueKind::flag:
      if (text == "true" || text == "1" || text == "yes" || text == "on") {
        value = true;
      } else if (text == "false" || text == "0" || text == "no" || text == "off") {
        value = false;
      } else {
        refuse(UnitProblem::malformed);
      }
      break;
    case ValueKind::integer: {
      const auto number = parse_integer(text);
      if (!number) refuse(number.problem);
      value = number.value;
      break;
    }
    case ValueKind::number: {
      const auto number = parse_number(text);
      if (!number) refuse(number.problem);
      value = number.value;
      break;
    }
    case ValueKind::duration: {
      const auto number = parse_duration(text);
      if (!number) refuse(number.problem);
      value = number.value;
      break;
    }
    case ValueKind::text:
    case ValueKind::path: value = text; break;
  }
  check_bounds(value, text, where);
  return value;
}

OptionScalar Option::accept(OptionScalar value, const std::string& where) const {
  // A text stands for what it would mean after the flag: steps = "100K". A number for a duration
  // counts seconds.
  if (const auto* text = std::get_if<std::string>(&value)) return parse(*text, where);
  const bool numeric = kind() == ValueKind::number || kind() == ValueKind::duration;
  if (numeric && std::holds_alternative<int64_t>(value)) {
    value = static_cast<double>(std::get<int64_t>(value));
  }
  const bool fits = (kind() == ValueKind::flag && std::holds_alternative<bool>(value)) ||
                    (kind() == ValueKind::integer && std::holds_alternative<int64_t>(value)) ||
                    (numeric && std::holds_alternative<double>(value));
  std::string got = fmt::format("'{}'", to_text(value));
  if (!fits) fail(ErrorKind::usage, "{}: expected {}, got {}", where, expectation(), got);
  if (numeric && !std::isfinite(std::get<double>(value))) {
    fail(ErrorKind::usage, "{}: expected {}, got '{}'", where, expectation(),
         std::get<double>(value));
  }
  check_bounds(value, to_text(value), where);
  return value;
}

void Option::check_bounds(const OptionScalar& value, const std::string& got,
                          const std::string& where) const {
  if (!choices_.empty()) {
    const std::string& word = std::get<std::string>(value);
    if (std::find(choices_.begin(), choices_.end(), word) == choices_.end()) {
      fail(ErrorKind::usage, "{}: expected {}, got '{}'{}", where, expectation(), got,
           nearest_hint(word, choices_));
    }
  }
  if (kind() == ValueKind::integer || kind() == ValueKind::number ||
      kind() == ValueKind::duration) {
    const long double x = magnitude(value);
    const bool inside = (low_open_ ? x > low_ : x >= low_) && (high_open_ ? x < high_ : x <= high_);
    if (!inside) fail(ErrorKind::usage, "{}: expected {}, got '{}'", where, expectation(), got);
    if (x < binding_.low || x > binding_.high) {
      fail(ErrorKind::usage, "{}: expected {} {}, got '{}'", where, kind_text(kind()),
           bounds_text(binding_.low, false, binding_.high, false, kind()), got);
    }
  }
  if (check_ && !check_(value)) {
    fail(ErrorKind::usage, "{}: expected {}, got '{}'", where, expectation(), got);
  }
}

void Option::assign(const OptionValues& values, Source source, std::string where) {
  if (source < origin_.source) return;
  if (values.empty() && !is_list()) return;
  binding_.write(values);
  origin_ = {source, std::move(where)};
}

void OptionRegistry::group(std::string name, std::string title) {
  current_group_ = name;
  for (const OptionGroup& group : groups_) {
    if (group.name == name) return;
  }
  groups_.push_back({std::move(name), std::move(title)});
}

Option& OptionRegistry::add_bound(std::string name, OptionBinding binding) {
  if (groups_.empty()) group("options", "Options");
  SW_CHECK(name.size() > 1 && name.find('_') == std::string::npos, internal,
           "option '{}': expected a name of two letters or more, with '-' between words", name);
  SW_CHECK(find(name) == nullptr, internal, "option '{}' is declared twice", name);
  options_.push_back(std::make_unique<Option>(std::move(name), current_group_, std::move(binding)));
  return *options_.back();
}

Option* OptionRegistry::find(std::string_view name) {
  std::string key(name);
  std::replace(key.begin(), key.end(), '-', '_');
  for (const auto& option : options_) {
    if (option->key() == key) return option.get();
  }
  return nullptr;
}

const Option* OptionRegistry::find(std::string_view name) const {
  return const_cast<OptionRegistry*>(this)->find(name);
}

const Option& OptionRegistry::at(std::string_view name) const {
  const Option* option = find(name);
  SW_CHECK(option != nullptr, internal, "no option '{}' is declared", name);
  return *option;
}

std::string OptionRegistry::hint_for_flag(const std::string& flag) const {
  std::vector<std::string> names;
  for (const auto& option : options_) {
    names.push_back("--" + option->name());
    if (option->is_flag() && option->scope() != Scope::command_line) {
      names.push_back("--no-" + option->name());
    }
  }
  return nearest_hint(flag, names);
}

std::string OptionRegistry::hint_for_key(const std::string& key) const {
  std::vector<std::string> keys;
  for (const auto& option : options_) {
    if (option->scope() != Scope::command_line) keys.push_back(option->key());
  }
  return nearest_hint(key, keys);
}

Option& OptionRegistry::option_for_key(std::string key, const std::string& where) {
  std::string section;
  if (const size_t dot = key.find('.'); dot != std::string::npos) {
    section = key.substr(0, dot);
    key = key.substr(dot + 1);
  }
  Option* option = find(key);
  if (option == nullptr) {
    fail(ErrorKind::usage, "{}: unknown key '{}'{}", where, key, hint_for_key(key));
  }
  if (option->scope() == Scope::command_line) {
    fail(ErrorKind::usage, "{}: '{}' is for the command line only, as --{}", where, key,
         option->name());
  }
  if (!section.empty() && section != option->group()) {
    fail(ErrorKind::usage, "{}: key '{}' belongs to section [{}], not [{}]", where, option->key(),
         option->group(), section);
  }
  return *option;
}

void OptionRegistry::set(const std::string& name, const std::string& value, Source source,
                         const std::string& where) {
  Option& option = option_for_key(name, where);
  option.assign({option.parse(value, where)}, source, where);
}

void OptionRegistry::apply_presets() {
  std::vector<std::pair<std::string, std::string>> presets;
  for (const auto& option : options_) {
    if (!option->is_preset()) continue;
    for (const OptionScalar& value : option->values()) {
      const std::string name = option->to_text(value);
      if (!name.empty()) presets.emplace_back(name, option->origin().where);
    }
  }
  for (const auto& [name, where] : presets) apply_preset(name, where);
}

void OptionRegistry::apply_preset(const std::string& name, const std::string& where) {
  const std::string path = find_preset(name, where).string();
  if (std::find(preset_chain_.begin(), preset_chain_.end(), path) != preset_chain_.end()) {
    fail(ErrorKind::usage, "{}: preset '{}' extends itself", where, name);
  }
  struct Link {
    std::vector<std::string>& chain;
    ~Link() { chain.pop_back(); }
  };
  preset_chain_.push_back(path);
  const Link link{preset_chain_};
  apply_toml_file(path, Source::preset, UnknownKeys::skip_sections);
}

void OptionRegistry::check_required() const {
  for (const auto& option : options_) {
    if (!option->is_required() || option->origin().source != Source::fallback) continue;
    fail(ErrorKind::usage, "--{} is missing; give --{} {}{}{}", option->name(), option->name(),
         option->value_name(), option->help().empty() ? "" : ": ", option->help());
  }
}

}  // namespace sw
