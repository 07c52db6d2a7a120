#include "tools/eval_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libswitch/base/log.h"

namespace sw {
namespace {

using nlohmann::ordered_json;

ordered_json head(const CheckpointReader* reader, const std::string& argument) {
  ordered_json out;
  if (reader != nullptr) {
    out["checkpoint"] = argument == "-" ? argument : reader->path().string();
    out["step"] = reader->meta().step;
  }
  out["results"] = ordered_json::array();
  return out;
}

}  // namespace

std::string perplexity_table(const std::vector<Evaluation>& results) {
  size_t width = 4;
  for (const auto& result : results) width = std::max(width, result.data.size());
  std::string text = fmt::format("{:<{}}  {:>18}  {:>10}  {:>9}  {:>7}\n", "data", width,
                                 "neg_log_perplexity", "tokens", "sequences", "dropped");
  for (const auto& r : results) {
    text += fmt::format("{:<{}}  {:>18.6f}  {:>10}  {:>9}  {:>6.2f}%\n", r.data, width,
                        r.neg_log_perplexity, r.tokens, r.sequences, 100 * r.dropped_share);
  }
  return text;
}

std::string perplexity_json(const CheckpointReader& reader, const std::string& argument,
                            const std::vector<Evaluation>& results) {
  ordered_json out = head(&reader, argument);
  for (const auto& r : results) {
    out["results"].push_back({{"data", r.data},
                              {"neg_log_perplexity", r.neg_log_perplexity},
                              {"tokens", r.tokens},
                              {"sequences", r.sequences},
                              {"dropped_share", r.dropped_share}});
  }
  return out.dump() + "\n";
}

std::string task_table(const std::vector<TaskResult>& results) {
  size_t width = 4, metric_width = 6;
  for (const auto& result : results) {
    width = std::max(width, result.task.size());
    for (const auto& [metric, value] : result.metrics) {
      metric_width = std::max(metric_width, metric.size());
    }
  }
  std::string text = fmt::format("{:<{}}  {:>8}  {:<{}}  {:>7}\n", "task", width, "examples",
                                 "metric", metric_width, "percent");
  for (const auto& r : results) {
    if (r.metrics.empty()) {
      text += fmt::format("{:<{}}  {:>8}  {:<{}}  {:>7}\n", r.task, width, r.examples, "none",
                          metric_width, "-");
    }
    bool first = true;
    for (const auto& [metric, value] : r.metrics) {
      text += fmt::format("{:<{}}  {:>8}  {:<{}}  {:>7.2f}\n", first ? r.task : "", width,
                          first ? std::to_string(r.examples) : "", metric, metric_width, value);
      first = false;
    }
  }
  return text;
}

std::string task_json(const CheckpointReader* reader, const std::string& argument,
                      const std::vector<TaskResult>& results) {
  ordered_json out = head(reader, argument);
  for (const auto& r : results) {
    ordered_json metrics = ordered_json::object();
    for (const auto& [metric, value] : r.metrics) metrics[metric] = value;
    out["results"].push_back({{"task", r.task}, {"examples", r.examples}, {"metrics", metrics}});
  }
  return out.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

void AnswerProgress::operator()(int64_t done) {
  const std::string text = fmt::format("{}: {} of {} answered, {:.1f} a second", task_, done,
                                       examples_, static_cast<double>(done) / timer_.seconds());
  if (mode_ == ProgressMode::bar) {
    bar_.draw(static_cast<double>(done) / static_cast<double>(examples_), text);
  } else if (mode_ == ProgressMode::plain && since_.seconds() >= 10) {
    since_.restart();
    log::info("{}", text);
  }
}

}  // namespace sw
