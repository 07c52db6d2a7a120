#include "libswitch/train/router_report_condition.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "libswitch/base/error.h"

namespace sw {
namespace {

enum class Figure { drop, dead, max, entropy, confidence, aux, z, tokens, experts, drift };
enum class Comparison { above, at_least, below, at_most, equal, different };
enum class Kind { all, any, comparison };

constexpr std::pair<std::string_view, Figure> kNames[] = {
    {"drop", Figure::drop},
    {"dropped", Figure::drop},
    {"dropped_share", Figure::drop},
    {"dead", Figure::dead},
    {"max", Figure::max},
    {"max/mean", Figure::max},
    {"max_over_mean", Figure::max},
    {"entropy", Figure::entropy},
    {"confidence", Figure::confidence},
    {"conf", Figure::confidence},
    {"aux", Figure::aux},
    {"aux_loss", Figure::aux},
    {"z", Figure::z},
    {"z_loss", Figure::z},
    {"tokens", Figure::tokens},
    {"experts", Figure::experts},
    {"drift", Figure::drift},
};

// The longer of two operators that begin alike comes first.
constexpr std::pair<std::string_view, Comparison> kComparisons[] = {
    {">=", Comparison::at_least},  {"<=", Comparison::at_most}, {"==", Comparison::equal},
    {"!=", Comparison::different}, {">", Comparison::above},    {"<", Comparison::below},
    {"=", Comparison::equal},
};

double figure_of(Figure figure, bool percent, const RouterStatistics& s, const LayerDrift* drift) {
  switch (figure) {
    case Figure::drop: return s.dropped_share();
    case Figure::dead: {
      const auto dead = static_cast<double>(s.dead());
      return percent && s.experts > 0 ? dead / static_cast<double>(s.experts) : dead;
    }
    case Figure::max: return s.max_over_mean();
    case Figure::entropy: return s.load_entropy();
    case Figure::confidence: return s.confidence();
    case Figure::aux: return s.aux();
    case Figure::z: return s.z();
    case Figure::tokens: return static_cast<double>(s.tokens);
    case Figure::experts: return static_cast<double>(s.experts);
    case Figure::drift:
      return drift != nullptr ? drift->load : std::numeric_limits<double>::quiet_NaN();
  }
  return std::numeric_limits<double>::quiet_NaN();
}

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
  Figure figure = Figure::drop;
  Comparison comparison = Comparison::above;
  double bound = 0;
  bool percent = false;

  bool holds(const RouterStatistics& layer, const LayerDrift* drift) const {
    if (kind == Kind::comparison) {
      return compare(figure_of(figure, percent, layer, drift), comparison, bound);
    }
    for (const auto& part : parts) {
      if (part->holds(layer, drift) != (kind == Kind::all)) return kind == Kind::any;
    }
    return kind == Kind::all;
  }
  bool uses(Figure wanted) const {
    if (kind == Kind::comparison) return figure == wanted;
    for (const auto& part : parts) {
      if (part->uses(wanted)) return true;
    }
    return false;
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
  Figure figure() {
    skip_spaces();
    const std::string name = word();
    for (const auto& [known, value] : kNames) {
      if (name == known) {
        at_ += name.size();
        return value;
      }
    }
    if (name.empty()) refuse("a figure such as drop, dead or max");
    std::vector<std::string> names;
    for (const auto& [known, value] : kNames) names.emplace_back(known);
    const std::string hint = nearest_hint(name, names);
    refuse("one of drop, dead, max, entropy, confidence, aux, z, tokens, experts, drift", hint);
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

bool RouterCondition::uses_drift() const { return root_->uses(Figure::drift); }

bool RouterCondition::holds(const RouterStatistics& layer, const LayerDrift* drift) const {
  return root_->holds(layer, drift);
}

}  // namespace sw
