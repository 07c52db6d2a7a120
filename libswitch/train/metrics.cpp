#include "libswitch/train/metrics.h"

#include <fcntl.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/train/evaluation.h"

namespace sw {
namespace {

using Json = nlohmann::ordered_json;

double seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

Json row(const char* kind, int64_t step) {
  return {{"kind", kind}, {"step", step}, {"time", std::round(seconds_since_1970() * 1e3) / 1e3}};
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace

TrainMetrics train_metrics(int64_t step, const StepResult& result) {
  TrainMetrics m;
  m.step = step;
  m.loss = result.loss;
  m.cross_entropy = result.cross_entropy;
  m.aux_loss = result.aux_loss;
  m.z_loss = result.z_loss;
  m.soft_cross_entropy = result.soft_cross_entropy;
  m.teacher_cross_entropy = result.teacher_cross_entropy;
  m.neg_log_perplexity = result.neg_log_perplexity();
  m.grad_norm = result.grad_norm;
  m.fault = result.fault;
  m.dropped_share = dropped_share(result.layers);
  for (const RouterStatistics& layer : result.layers) {
    m.max_over_mean_load = std::max(m.max_over_mean_load, layer.max_over_mean());
    m.dead_experts += layer.dead();
  }
  return m;
}

Json to_json(const TrainMetrics& m) {
  Json json = row("train", m.step);
  json["loss"] = number(m.loss);
  json["cross_entropy"] = number(m.cross_entropy);
  json["neg_log_perplexity"] = number(m.neg_log_perplexity);
  json["aux_loss"] = number(m.aux_loss);
  json["z_loss"] = number(m.z_loss);
  if (m.soft_cross_entropy != 0) {
    json["soft_cross_entropy"] = number(m.soft_cross_entropy);
    json["teacher_cross_entropy"] = number(m.teacher_cross_entropy);
  }
  json["grad_norm"] = number(m.grad_norm);
  json["lr"] = number(m.lr);
  json["tokens"] = m.tokens;
  json["tokens_per_second"] = number(m.tokens_per_second);
  json["share_of_peak"] = number(m.share_of_peak);
  json["dropped_share"] = number(m.dropped_share);
  json["max_over_mean_load"] = number(m.max_over_mean_load);
  json["dead_experts"] = m.dead_experts;
  json["data_wait_share"] = number(m.data_wait_share);
  json["step_seconds"] = number(m.step_seconds);
  if (m.slowest_rank >= 0) {
    json["slowest_rank"] = m.slowest_rank;
    json["slowest_gap"] = number(m.slowest_gap);
    json["comm_share"] = number(m.comm_share);
  }
  if (!m.fault.empty()) json["skipped"] = m.fault;
  return json;
}

Json to_json(const Evaluation& e, int64_t step) {
  Json json = row("eval", step);
  json["data"] = e.data;
  json["neg_log_perplexity"] = number(e.neg_log_perplexity);
  json["tokens"] = e.tokens;
  json["sequences"] = e.sequences;
  json["dropped_share"] = number(e.dropped_share);
  for (const auto& [name, value] : e.metrics) json[name] = number(value);
  return json;
}

Json event_json(const std::string& name, int64_t step) {
  Json json = row("event", step);
  json["event"] = name;
  return json;
}

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t step, int64_t first_step)
    : path_(path) {
  std::string text;
  if (std::filesystem::exists(path)) text = read_file(path);
  size_t keep = 0;
  int64_t last_train = first_step;
  while (keep < text.size()) {
    const size_t end = text.find('\n', keep);
    if (end == std::string::npos) break;
    const Json json = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(keep),
                                  text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) break;
    const auto at = json["step"].get<int64_t>();
    if (at > step) break;
    const std::string kind = json.value("kind", "");
    if (kind == "train") last_train = at;
    if (kind == "eval" && at == step) has_evaluation_ = true;
    keep = end + 1;
  }
  if (last_train != step) {
    log::warn("{}: goes to step {} only, the run goes on after step {}", path.string(), last_train,
              step);
  }
  fd_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  SW_CHECK(fd_.get() >= 0, cannot_create, "{}: cannot write: {}", path.string(),
           std::strerror(errno));
  bytes_ = static_cast<int64_t>(keep);
  SW_CHECK(::ftruncate(fd_.get(), bytes_) == 0, io, "{}: cannot cut to {} bytes: {}", path.string(),
           bytes_, std::strerror(errno));
}

void MetricsFile::append(const Json& object) {
  pending_ += object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  try {
    flush();
  } catch (const Error& error) {
    if (!std::exchange(warned_, true)) log::warn("{}; lines are kept for later", error.what());
  }
}

void MetricsFile::flush() {
  if (pending_.empty()) return;
  pwrite_all(fd_.get(), pending_.data(), pending_.size(), static_cast<uint64_t>(bytes_),
             path_.string());
  bytes_ += static_cast<int64_t>(pending_.size());
  pending_.clear();
  warned_ = false;
}

void MetricsFile::sync() {
  flush();
  SW_CHECK(::fsync(fd_.get()) == 0, io, "{}: fsync failed: {}", path_.string(),
           std::strerror(errno));
}

}  // namespace sw
