#include <algorithm>
#include <cmath>
#include <fstream>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "tests/oracle/oracle.h"

namespace sw::oracle {
namespace {

constexpr double kLossTolerance = 2e-5;
constexpr double kGradientTolerance = 1e-4;
constexpr double kGateTolerance = 2e-5;

// Largest error found in one class of numbers, and where.
class Worst {
 public:
  Worst(const char* name, double tolerance) : name_(name), tolerance_(tolerance) {}
  void add(double got, double expected, double scale, const std::string& where) {
    const double error = std::abs(got - expected) / std::max(std::abs(scale), 1e-30);
    ++count_;
    if (!(error <= error_)) error_ = error, where_ = where, got_ = got, expected_ = expected;
  }
  void set_tolerance(double tolerance) { tolerance_ = tolerance; }
  void missing(const std::string& where) { missing_ = where; }
  void report(Comparison& comparison) const {
    if (!missing_.empty()) {
      comparison.passed = false;
      comparison.report[name_] = "missing: " + missing_;
      return;
    }
    if (count_ == 0) return;
    comparison.report[name_] = error_;
    if (!(error_ <= tolerance_)) {
      comparison.passed = false;
      comparison.report[std::string(name_) + "_worst"] = {
          {"where", where_}, {"got", got_}, {"expected", expected_}, {"tolerance", tolerance_}};
    }
  }

 private:
  const char* name_;
  double tolerance_;
  double error_ = 0, got_ = 0, expected_ = 0;
  int64_t count_ = 0;
  std::string where_, missing_;
};

struct Checks {
  Worst losses{"losses", kLossTolerance};
  Worst logits{"logits", kLossTolerance};
  Worst gates{"gates", kGateTolerance};
  Worst gradients{"gradients", kGradientTolerance};
  Worst weights{"weights_after", kGradientTolerance};
  std::string routing_difference;
};

void flatten(const Json& value, std::vector<double>& out) {
  if (value.is_array()) {
    for (const Json& item : value) flatten(item, out);
  } else {
    out.push_back(value.get<double>());
  }
}

void compare_logits(Worst& worst, const Json& got, const Json& expected) {
  std::vector<double> a, b;
  flatten(got, a);
  flatten(expected, b);
  if (a.size() != b.size()) return worst.missing("logits of the expected number");
  double largest = 0;
  for (const double x : b) largest = std::max(largest, std::abs(x));
  for (size_t i = 0; i < a.size(); ++i) {
    worst.add(a[i], b[i], largest, fmt::format("logit {}", i));
  }
}

void compare_loss(Worst& worst, const Json& got, const Json& expected, const std::string& where) {
  if (expected.is_null() != got.is_null()) return worst.missing(where);
  if (expected.is_null()) return;
  if (expected.is_array()) {
    if (got.size() != expected.size()) return worst.missing(where);
    for (size_t i = 0; i < expected.size(); ++i) {
      compare_loss(worst, got[i], expected[i], fmt::format("{}[{}]", where, i));
    }
    return;
  }
  worst.add(got.get<double>(), expected.get<double>(), expected.get<double>(), where);
}

void compare_tensors(Worst& worst, const Json& got, const Json& expected) {
  for (const auto& [name, numbers] : expected.items()) {
    if (!got.contains(name)) return worst.missing(name);
    const double l2 = numbers.at("l2").get<double>();
    worst.add(got[name]["l2"].get<double>(), l2, l2, name + " l2");
    worst.add(got[name]["first"].get<double>(), numbers.at("first").get<double>(), l2,
              name + " first");
    if (numbers.contains("product")) {
      worst.add(got[name]["product"].get<double>(), numbers["product"].get<double>(), l2,
                name + " product");
    }
  }
}

// Hugging Face: a table of experts; Mesh: groups, sizes and [expert, slot, gate] per token.
void compare_routing(Checks& checks, const Json& got, const Json& expected,
                     const std::string& where) {
  for (const auto& [router, plan] : expected.items()) {
    const std::string place = where + router;
    const auto differ = [&](const std::string& what) {
      if (checks.routing_difference.empty()) checks.routing_difference = place + ": " + what;
    };
    if (!got.contains(router)) {
      differ("missing");
      continue;
    }
    const Json& ours = got[router];
    if (plan.is_array()) {
      for (size_t row = 0; row < plan.size(); ++row) {
        for (size_t i = 0; i < plan[row].size(); ++i) {
          if (ours.at(row).at(i) != plan[row][i]) {
            differ(fmt::format("row {} token {}: got {}, expected {}", row, i, ours[row][i].dump(),
                               plan[row][i].dump()));
          }
        }
      }
      continue;
    }
    for (const char* key : {"groups", "group_size", "capacity"}) {
      if (ours.at(key) != plan.at(key)) {
        differ(fmt::format("{}: got {}, expected {}", key, ours[key].dump(), plan[key].dump()));
      }
    }
    const Json &tokens = plan.at("tokens"), &our_tokens = ours.at("tokens");
    if (tokens.size() != our_tokens.size()) {
      differ("another number of tokens");
      continue;
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto text = [&](const Json& token) { return token.dump(); };
      if (tokens[i].size() != our_tokens[i].size()) {
        differ(
            fmt::format("token {}: got {}, expected {}", i, text(our_tokens[i]), text(tokens[i])));
        continue;
      }
      for (size_t c = 0; c < tokens[i].size(); ++c) {
        if (tokens[i][c][0] != our_tokens[i][c][0] || tokens[i][c][1] != our_tokens[i][c][1]) {
          differ(fmt::format("token {}: got {}, expected {}", i, text(our_tokens[i]),
                             text(tokens[i])));
        }
        const double gate = tokens[i][c][2].get<double>();
        checks.gates.add(our_tokens[i][c][2].get<double>(), gate, gate,
                         fmt::format("{} token {}", place, i));
      }
    }
  }
}

void compare_section(Checks& checks, const Json& got, const Json& expected,
                     const std::string& prefix) {
  for (const auto& [key, value] : expected.items()) {
    const std::string where = prefix + key;
    if (key == "reference" || key == "gradient_tolerance") continue;
    if (!got.contains(key)) {
      checks.losses.missing(where);
    } else if (key == "logits") {
      compare_logits(checks.logits, got[key], value);
    } else if (key == "routing") {
      if (!value.is_null()) compare_routing(checks, got[key], value, prefix);
    } else if (key == "gradients") {
      compare_tensors(checks.gradients, got[key], value);
    } else if (key == "weights_after") {
      compare_tensors(checks.weights, got[key], value);
    } else if (key == "gradient_l2") {
      checks.gradients.add(got[key].get<double>(), value.get<double>(), value.get<double>(), where);
    } else if (key == "eval" || key == "train") {
      compare_section(checks, got[key], value, key + ".");
    } else {
      compare_loss(checks.losses, got[key], value, where);
    }
  }
}

}  // namespace

Json read_json(const std::filesystem::path& path) {
  try {
    return Json::parse(read_file(path));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::corrupt, "{}: not valid JSON: {}", path.string(), error.what());
  }
}

Json run_case(const std::filesystem::path& folder, const RunOptions& options) {
  const bool mesh = std::filesystem::exists(folder / "case.json");
  try {
    return mesh ? run_mesh_case(folder, options) : run_hugging_face_case(folder, options);
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::corrupt, "{}: a key is missing or of another type: {}", folder.string(),
         error.what());
  }
}

Comparison compare_with_expected(const Json& got, const std::filesystem::path& folder) {
  const Json expected = read_json(folder / "expected.json");
  Checks checks;
  checks.gradients.set_tolerance(expected.value("gradient_tolerance", kGradientTolerance));
  compare_section(checks, got, expected, "");
  Comparison comparison;
  for (const Worst* worst :
       {&checks.losses, &checks.logits, &checks.gates, &checks.gradients, &checks.weights}) {
    worst->report(comparison);
  }
  if (checks.routing_difference.empty()) {
    comparison.report["routing"] = "equal";
  } else {
    comparison.passed = false;
    comparison.report["routing"] = checks.routing_difference;
  }
  return comparison;
}

}  // namespace sw::oracle
