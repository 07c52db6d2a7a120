// The one registry of options behind every tool.
//
// An option is declared once, bound to a field of the tool's own options struct:
//
//   registry.group("train", "Training");
//   registry.add("steps", &options.steps).value_name("N").at_least(1).required()
//       .help("optimizer steps to run");
//
// From that come the command line, TOML files, the environment (SW_STEPS), --help, the man page,
// shell completion, --print-config and validation. The field's value at the time of declaration is
// the default. Precedence: default < preset < configuration file < environment < flag. Wrong names
// and values throw Error{usage} that says where, what was expected and what was got.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "libswitch/base/option_binding.h"

namespace sw {

/// Where a value comes from; a later one wins over an earlier one.
enum class Source { fallback, preset, file, environment, flag };

struct Origin {
  Source source = Source::fallback;
  std::string where = "default";  // "run.toml:12", "SW_STEPS", "--steps", "default"
};

/// Who may set an option, and whether a resolved configuration holds it.
enum class Scope {
  resolved,      // part of the run: --print-config writes it
  local,         // of this machine or terminal (--threads): read from everywhere, never written
  command_line,  // of this call (--help): a flag only
};

/// One declared option. The setters are chained at the declaration; the getters feed help, man
/// page, completion and configuration writers.
class Option {
 public:
  Option(std::string name, std::string group, OptionBinding binding);

  /// One phrase, lower case, without a full stop: "optimizer steps to run".
  Option& help(std::string text);
  /// Further sentences for --help-all and the man page.
  Option& details(std::string text);
  Option& short_name(char letter);
  /// The word after the option in help: "N", "FILE"; by default from the type.
  Option& value_name(std::string text);
  Option& unit(std::string text);
  /// Inclusive and exclusive bounds, in the option's unit (seconds for durations); each element
  /// of a list is held to them.
  Option& at_least(long double bound);
  Option& at_most(long double bound);
  Option& above(long double bound);
  Option& below(long double bound);
  Option& range(long double low, long double high) { return at_least(low).at_most(high); }
  /// The words a text option takes.
  Option& choices(std::vector<std::string> words);
  /// A further rule; `expected` completes "expected ...": "a power of two".
  Option& check(std::string expected, std::function<bool(const OptionScalar&)> holds);
  /// Shown for the default in help instead of the value: "all usable cores".
  Option& default_text(std::string text);
  /// Listed by --help-all and the man page only.
  Option& advanced();
  Option& required();
  Option& scope(Scope scope);
  /// The value names a preset of data/presets (or a .toml file), which
  /// OptionRegistry::apply_presets() reads.
  Option& names_preset();
  /// The value may be left out: `--print-config` then means `--print-config=all`.
  Option& implicit_value(std::string text);
  /// Each mention adds one: -vv.
  Option& counts();
  /// Completion offers files; paths do so by themselves.
  Option& completes_files();
  /// Each value is KEY=VALUE and sets another option as its flag would (--set).
  Option& assigns_options();

  const std::string& name() const { return name_; }
  /// The key in TOML: the name with '_' for '-'.
  const std::string& key() const { return key_; }
  std::string environment_name() const;
  const std::string& group() const { return group_; }
  ValueKind kind() const { return binding_.kind; }
  bool is_list() const { return binding_.list; }
  bool is_flag() const { return binding_.kind == ValueKind::flag; }
  char short_name() const { return short_name_; }
  const std::string& help() const { return help_; }
  const std::string& details() const { return details_; }
  /// "N", "SECONDS", "auto|fp32|bf16"; empty for a flag.
  std::string value_name() const;
  const std::string& unit() const { return unit_; }
  const std::vector<std::string>& choices() const { return choices_; }
  bool is_advanced() const { return advanced_; }
  bool is_required() const { return required_; }
  Scope scope() const { return scope_; }
  bool is_preset() const { return preset_; }
  bool is_counter() const { return counter_; }
  bool is_assignment() const { return assignment_; }
  bool takes_files() const { return files_ || binding_.kind == ValueKind::path; }
  const std::string& implicit_value() const { return implicit_; }
  /// The default as a user would type it; empty when there is none.
  std::string default_text() const;
  /// "an integer of at least 1 (tokens)": what this option accepts.
  std::string expectation() const;
  const Origin& origin() const { return origin_; }
  /// The bound field's present value: none for an unset optional, any number for a list.
  OptionValues values() const { return binding_.read(); }
  /// One value as a user would type it.
  std::string to_text(const OptionScalar& value) const;

  /// Text to a value of this option's kind, within its bounds, or Error{usage} "WHERE: expected
  /// ..., got '...'".
  OptionScalar parse(const std::string& text, const std::string& where) const;
  /// The same rules for a value that is typed already (from TOML).
  OptionScalar accept(OptionScalar value, const std::string& where) const;
  /// Writes the field, unless it holds a value of a stronger source.
  void assign(const OptionValues& values, Source source, std::string where);

 private:
  void check_bounds(const OptionScalar& value, const std::string& got,
                    const std::string& where) const;

  std::string name_, key_, group_;
  OptionBinding binding_;
  char short_name_ = 0;
  std::string help_, details_, value_name_, unit_, default_text_, implicit_;
  bool has_default_text_ = false;
  OptionValues default_;
  long double low_, high_;
  bool low_open_ = false, high_open_ = false;
  std::vector<std::string> choices_;
  std::string check_expected_;
  std::function<bool(const OptionScalar&)> check_;
  bool advanced_ = false, required_ = false, preset_ = false, files_ = false;
  bool assignment_ = false, counter_ = false;
  Scope scope_ = Scope::resolved;
  Origin origin_;
};

/// A named set of options: a heading in help and a [section] in TOML.
struct OptionGroup {
  std::string name, title;
};

/// What a resolved configuration shows.
enum class ConfigDetail {
  all,      // every resolved option
  changed,  // those that are not at their default
  origins,  // all, each with where its value came from
};

/// What to do with a key that no option has.
enum class UnknownKeys {
  refuse,
  skip_sections,  // a section that is no group of this tool is for others: how presets are read
  ignore,
};

class OptionRegistry {
 public:
  OptionRegistry() = default;
  OptionRegistry(const OptionRegistry&) = delete;
  OptionRegistry& operator=(const OptionRegistry&) = delete;

  /// Options added from here on belong to this group.
  void group(std::string name, std::string title);

  /// Declares --`name` bound to `field` (bool, int32_t, int64_t, uint64_t, float, double,
  /// std::string, std::filesystem::path, Seconds; std::optional or std::vector of these). The
  /// field must outlive the registry. A bool is a flag, also as --no-`name`.
  template <class T>
  Option& add(std::string name, T* field) {
    return add_bound(std::move(name), bind_option(field));
  }
  /// Declares a choice bound to an enum.
  template <class E>
  requires std::is_enum_v<E> Option& add_choice(std::string name, E* field,
                                                std::vector<std::pair<std::string, E>> words) {
    std::vector<std::string> names;
    for (const auto& [word, value] : words) names.push_back(word);
    return add_bound(std::move(name), bind_choice(field, std::move(words)))
        .choices(std::move(names));
  }
  /// Declares a choice bound to its word.
  Option& add_choice(std::string name, std::string* field, std::vector<std::string> words) {
    return add(std::move(name), field).choices(std::move(words));
  }
  Option& add_bound(std::string name, OptionBinding binding);

  /// Reads the flags (through cxxopts) and returns the positional arguments. Flags given twice:
  /// the last wins; lists collect.
  std::vector<std::string> parse_command_line(int argc, const char* const* argv);
  /// Reads SW_<NAME> for every option that is not command-line only; an empty variable counts as
  /// unset, a list is separated by commas.
  void apply_environment();
  /// Variables SW_... that no option reads though their name is close to one that does, as
  /// warnings.
  std::vector<std::string> environment_slips() const;
  /// Reads a TOML file or text; `name` stands in messages. Keys lie at the top or in the section
  /// named by their group. Throws usage (with file and line), missing or io.
  void apply_toml_file(const std::string& path, Source source,
                       UnknownKeys unknown = UnknownKeys::refuse);
  void apply_toml(std::string_view text, const std::string& name, Source source,
                  UnknownKeys unknown = UnknownKeys::refuse);
  /// Reads the presets that options marked names_preset() hold now. Files, environment and flags
  /// applied before keep their precedence.
  void apply_presets();
  /// Reads a preset by name or path. A top-level `extends = "NAME"` reads that one first. Sections
  /// that this tool lacks are skipped, unless their name looks like a slip.
  void apply_preset(const std::string& name, const std::string& where);
  /// Sets an option by name from text; a list gets one element.
  void set(const std::string& name, const std::string& value, Source source,
           const std::string& where);
  /// Throws usage when a required option has no value.
  void check_required() const;

  /// The resolved configuration as TOML that apply_toml() reads back to equal values.
  std::string to_toml(ConfigDetail detail = ConfigDetail::all) const;

  /// By name or key; nullptr when there is none.
  Option* find(std::string_view name);
  const Option* find(std::string_view name) const;
  /// As find(), for code that knows the option exists.
  const Option& at(std::string_view name) const;
  const std::vector<std::unique_ptr<Option>>& options() const { return options_; }
  const std::vector<OptionGroup>& groups() const { return groups_; }

 private:
  friend class TomlReader;
  std::string hint_for_flag(const std::string& flag) const;
  std::string hint_for_key(const std::string& key) const;
  // The option of `key`, which may carry its section ("train.steps"); throws usage.
  Option& option_for_key(std::string key, const std::string& where);

  std::vector<std::unique_ptr<Option>> options_;
  std::vector<OptionGroup> groups_;
  std::string current_group_;
  std::vector<std::string> preset_chain_;  // files of the presets being read, outermost first
};

}  // namespace sw
