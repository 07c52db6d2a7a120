#include "libswitch/report/router_condition.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/report/load_figures.h"

namespace sw {
namespace {

enum class Comparison { above, at_least, below, at_most, equal, different };
enum class Kind { all, any, comparison };

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

using Layer = const LayerReport&;
using Drift = const LayerDrift*;

// What one can ask for, and where it is found.
struct Figure {
  std::string_view name;
  double (*value)(Layer, Drift);
  enum Needs { nothing, two_checkpoints, data } needs = nothing;
  bool of_experts = false;  // a count that a percentage makes a share of all experts
};

constexpr Figure kFigures[] = {
    {"drop", [](Layer l, Drift) { return l.statistics.dropped_share(); }},
    {"dead", [](Layer l, Drift) { return static_cast<double>(l.statistics.dead()); },
     Figure::nothing, true},
    {"starving",
     [](Layer l, Drift) { return static_cast<double>(load_figures(l.statistics).starving); },
     Figure::nothing, true},
    {"max", [](Layer l, Drift) { return l.statistics.max_over_mean(); }},
    {"min", [](Layer l, Drift) { return load_figures(l.statistics).min_over_mean; }},
    {"cv", [](Layer l, Drift) { return load_figures(l.statistics).cv; }},
    {"gini", [](Layer l, Drift) { return load_figures(l.statistics).gini; }},
    {"entropy", [](Layer l, Drift) { return l.statistics.load_entropy(); }},
    {"confidence", [](Layer l, Drift) { return l.statistics.confidence(); }},
    {"capacity", [](Layer l, Drift) { return l.capacity_use; }},
    {"aux", [](Layer l, Drift) { return l.statistics.aux(); }},
    {"z", [](Layer l, Drift) { return l.statistics.z(); }},
    {"tokens", [](Layer l, Drift) { return static_cast<double>(l.statistics.tokens); }},
    {"experts", [](Layer l, Drift) { return static_cast<double>(l.statistics.experts); }},
    {"drift", [](Layer, Drift d) { return d != nullptr ? d->load : kUnknown; },
     Figure::two_checkpoints},
    {"cosine", [](Layer, Drift d) { return d != nullptr ? d->router_cosine : kUnknown; },
     Figure::two_checkpoints},
    {"saturation", [](Layer, Drift d) { return d != nullptr ? d->same_expert : kUnknown; },
     Figure::two_checkpoints},
    {"same", [](Layer l, Drift) { return l.tokens ? l.tokens->same_share() : kUnknown; },
     Figure::data},
};

constexpr std::pair<std::string_view, std::string_view> kOtherNames[] = {
    {"dropped", "drop"},      {"dropped_share", "drop"},    {"max/mean", "max"},
    {"max_over_mean", "max"}, {"min/mean", "min"},          {"min_over_mean", "min"},
    {"conf", "confidence"},   {"aux_loss", "aux"},          {"z_loss", "z"},
    {"full", "capacity"},     {"capacity_use", "capacity"}, {"starv", "starving"},
    {"load_drift", "drift"},  {"router_cosine", "cosine"},  {"same_expert", "saturation"},
};

const Figure* find_figure(std::string_view name) {
  for (const auto& [other, known] : kOtherNames) {
    if (name == other) name = known;
  }
  for (const Figure& figure : kFigures) {
    if (name == figure.name) return &figure;
  }
  return nullptr;
}

// The longer of two operators that begin alike comes first.
constexpr std::pair<std::string_view, Comparison> kComparisons[] = {
    {">=", Comparison::at_least},  {"<=", Comparison::at_most}, {"==", Comparison::equal},
    {"!=", Comparison::different}, {">", Comparison::above},    {"<", Comparison::below},
    {"=", Comparison::equal},
};

bool compare(double value, Comparison comparison, double bound) {
  switch (comparison) {
    case Comparison::above: return value > bound;
    case Comparison::at_least: return value >= bound;
    case Comparison::below: return value < bound;
    case Comparison::at_most: return value <= bound;
    case Comparison::equal: return value == bound;
    case Comparison::different: return value != bound;
  }
  return false;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n'; }
bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '/';
}

}  // namespace

struct RouterCondition::Node {
  Kind kind = Kind::comparison;
  std::vector<std::unique_ptr<Node>> parts;  // of all and any
  const Figure* figure = nullptr;
  Comparison comparison = Comparison::above;
  double bound = 0;
  bool percent = false;

  bool holds(Layer layer, Drift drift) const {
    if (kind == Kind::comparison) {
      double value = figure->value(layer, drift);
      if (percent && figure->of_experts && layer.statistics.experts > 0) {
        value /= static_cast<double>(layer.statistics.experts);
      }
      return compare(value, comparison, bound);
    }
    for (const auto& part : parts) {
      if (part->holds(layer, drift) != (kind == Kind::all)) return kind == Kind::any;
    }
    return kind == Kind::all;
  }
  // A figure that cannot be had, or null.
  const Figure* lacks(bool two_checkpoints, bool data) const {
    if (kind == Kind::comparison) {
      const bool had = figure->needs == Figure::nothing ||
                       (figure->needs == Figure::two_checkpoints && two_checkpoints) ||
                       (figure->needs == Figure::data && data);
      return had && !(figure->name == "saturation" && !data) ? nullptr : figure;
    }
    for (const auto& part : parts) {
      if (const Figure* found = part->lacks(two_checkpoints, data)) return found;
    }
    return nullptr;
  }
};

class RouterConditionParser {
 public:
  using NodePtr = std::unique_ptr<RouterCondition::Node>;
  explicit RouterConditionParser(std::string_view text) : text_(text) {}

  NodePtr parse() {
    NodePtr node = parse_any(0);
    skip_spaces();
    if (at_ < text_.size()) refuse("'and', 'or' or the end");
    return node;
  }

 private:
  static constexpr int kMaxDepth = 100;

  NodePtr parse_any(int depth) {
    return parse_list(Kind::any, "or", "||", [&] {
      return parse_list(Kind::all, "and", "&&", [&] { return term(depth); });
    });
  }
  template <class Parse>
  NodePtr parse_list(Kind kind, std::string_view word, std::string_view sign, const Parse& parse) {
    auto list = std::make_unique<RouterCondition::Node>();
    list->kind = kind;
    do {
      list->parts.push_back(parse());
    } while (take_word(word) || take(sign));
    return list->parts.size() == 1 ? std::move(list->parts[0]) : std::move(list);
  }
  NodePtr term(int depth) {
    if (take("(")) {
      if (depth >= kMaxDepth) refuse("fewer parentheses");
      NodePtr node = parse_any(depth + 1);
      if (!take(")")) refuse("')'");
      return node;
    }
    auto node = std::make_unique<RouterCondition::Node>();
    node->figure = figure();
    node->comparison = comparison();
    node->bound = number(node->percent);
    return node;
  }
  const Figure* figure() {
    skip_spaces();
    const std::string name = word();
    if (const Figure* found = find_figure(name)) {
      at_ += name.size();
      return found;
    }
    if (name.empty()) refuse("a figure such as drop, dead or max");
    std::vector<std::string> names, known;
    for (const Figure& figure : kFigures) {
      names.emplace_back(figure.name);
      known.emplace_back(figure.name);
    }
    for (const auto& [other, one] : kOtherNames) names.emplace_back(other);
    refuse(fmt::format("one of {}", fmt::join(known, ", ")), nearest_hint(name, names));
  }
  Comparison comparison() {
    for (const auto& [sign, value] : kComparisons) {
      if (take(sign)) return value;
    }
    refuse("> >= < <= == or !=");
  }
  double number(bool& percent) {
    skip_spaces();
    double value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc() || !std::isfinite(value)) refuse("a number");
    at_ += static_cast<size_t>(end - begin);
    percent = take("%");
    return percent ? value / 100 : value;
  }

  void skip_spaces() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  std::string word() const {
    size_t end = at_;
    while (end < text_.size() && is_word(text_[end])) ++end;
    return std::string(text_.substr(at_, end - at_));
  }
  bool take(std::string_view sign) {
    skip_spaces();
    if (!text_.substr(at_).starts_with(sign)) return false;
    at_ += sign.size();
    return true;
  }
  bool take_word(std::string_view wanted) {
    skip_spaces();
    if (word() != wanted) return false;
    at_ += wanted.size();
    return true;
  }
  [[noreturn]] void refuse(const std::string& expected, const std::string& hint = "") const {
    const std::string rest(text_.substr(at_, 20));
    fail(ErrorKind::usage, "condition '{}': expected {} at {}{}", text_, expected,
         rest.empty() ? "its end" : fmt::format("'{}' (character {})", rest, at_ + 1), hint);
  }

  std::string_view text_;
  size_t at_ = 0;
};

RouterCondition::RouterCondition(const std::string& text)
    : text_(text), root_(RouterConditionParser(text).parse()) {}
RouterCondition::~RouterCondition() = default;
RouterCondition::RouterCondition(RouterCondition&&) noexcept = default;
RouterCondition& RouterCondition::operator=(RouterCondition&&) noexcept = default;

void RouterCondition::check_known(bool two_checkpoints, bool data) const {
  const auto* figure = root_->lacks(two_checkpoints, data);
  if (figure == nullptr) return;
  fail(ErrorKind::usage, "condition '{}': {} needs {}", text_, figure->name,
       figure->name == "saturation"    ? "two checkpoints and --data"
       : figure->needs == Figure::data ? "--data"
                                       : "two checkpoints");
}

bool RouterCondition::holds(const LayerReport& layer, const LayerDrift* drift) const {
  return root_->holds(layer, drift);
}

}  // namespace sw
