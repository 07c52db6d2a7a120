#include "libswitch/train/distill_comparison.h"

#include <cmath>
#include <sstream>
#include <utility>
#include <vector>

#include "libswitch/base/file.h"
#include "libswitch/base/log.h"
#include "libswitch/train/metrics.h"

namespace sw {
namespace {

// What an evaluation's figures are called, the negative log perplexity first.
std::vector<std::pair<std::string, double>> figures_of(const Evaluation& evaluation) {
  std::vector<std::pair<std::string, double>> figures = {
      {"neg_log_perplexity", evaluation.neg_log_perplexity}};
  figures.insert(figures.end(), evaluation.metrics.begin(), evaluation.metrics.end());
  return figures;
}

}  // namespace

double share_kept(double baseline, double student, double teacher) {
  const double gain = teacher - baseline;
  return gain > 0 ? (student - baseline) / gain : std::nan("");
}

nlohmann::ordered_json compare_models(int64_t step, const Evaluation& student,
                                      const Evaluation& teacher, const Evaluation* baseline,
                                      double compression) {
  nlohmann::ordered_json event = event_json("distilled", step);
  event["data"] = student.data;
  event["compression"] = compression;
  const auto students = figures_of(student), teachers = figures_of(teacher);
  for (size_t i = 0; i < students.size(); ++i) {
    const auto& [name, value] = students[i];
    nlohmann::ordered_json figures = {{"teacher", teachers[i].second}, {"student", value}};
    std::string text = fmt::format("{} | {} | teacher {:.4f} | student {:.4f}", student.data, name,
                                   teachers[i].second, value);
    if (baseline != nullptr) {
      const double base = figures_of(*baseline)[i].second;
      const double share = share_kept(base, value, teachers[i].second);
      figures["baseline"] = base;
      figures["share_kept"] = share;  // null when it is not a number
      text += fmt::format(" | baseline {:.4f}", base);
      text += std::isnan(share) ? std::string(" | the teacher gains nothing over it")
                                : fmt::format(" | {:.1f} % of the gain kept", 100 * share);
    }
    event[name] = std::move(figures);
    log::info("{} | compression {:.1f} %", text, 100 * compression);
  }
  return event;
}

bool holds_event(const std::filesystem::path& metrics, const nlohmann::ordered_json& event) {
  if (!std::filesystem::exists(metrics)) return false;
  const auto timeless = [](nlohmann::ordered_json json) {
    json.erase("time");
    return json.dump();
  };
  const std::string wanted = timeless(event);
  std::istringstream in(read_file(metrics));
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::ordered_json::parse(line, nullptr, false);
    if (json.is_object() && timeless(json) == wanted) return true;
  }
  return false;
}

}  // namespace sw
