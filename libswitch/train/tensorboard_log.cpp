#include "libswitch/train/tensorboard_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/train/event_records.h"

namespace sw {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A name that no other file has, in the order of the starts.
std::filesystem::path event_file(const std::filesystem::path& folder) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {'h', 'o', 's', 't'};
  const std::string name = fmt::format("events.out.tfevents.{:010}.{}.{}",
                                       static_cast<int64_t>(now()), host.data(), ::getpid());
  std::filesystem::path path = folder / (name + ".0");
  for (int n = 1; std::filesystem::exists(path); ++n) path = folder / fmt::format("{}.{}", name, n);
  return path;
}

}  // namespace

TensorBoardLog::TensorBoardLog(const std::filesystem::path& folder, int64_t step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  SW_CHECK(!error, cannot_create, "{}: cannot create: {}", folder.string(), error.message());
  file_ = std::make_unique<BackgroundFile>(event_file(folder));
  file_->append(event_record(version_event(now())));
  if (step > 0) go_back(step);
}

void TensorBoardLog::go_back(int64_t step) {
  file_->append(event_record(session_start_event(now(), step + 1)));
}

void TensorBoardLog::add(const nlohmann::ordered_json& line) {
  const std::string kind = line.value("kind", "");
  if (kind != "train" && kind != "eval") return;
  const std::string prefix = kind == "train" ? kind : kind + "/" + line.value("data", "");
  std::vector<EventScalar> scalars;
  for (const auto& [key, value] : line.items()) {
    if (!value.is_number() || key == "step" || key == "time") continue;
    scalars.emplace_back(prefix + "/" + key, value.get<double>());
  }
  file_->append(event_record(
      scalars_event(line.value("time", now()), line.value("step", int64_t{0}), scalars)));
}

void TensorBoardLog::add_loads(int64_t step, const std::vector<RouterStatistics>& layers) {
  if (step % kHistogramSteps != 0 && step != 1) return;
  for (const RouterStatistics& layer : layers) {
    const auto total =
        static_cast<double>(std::accumulate(layer.chosen.begin(), layer.chosen.end(), int64_t{0}));
    if (!(total > 0)) continue;
    std::vector<double> loads;
    for (const int64_t count : layer.chosen) {
      loads.push_back(static_cast<double>(count) / total * static_cast<double>(layer.experts));
    }
    file_->append(event_record(
        histogram_event(now(), step, "router/" + layer.name + "/load", event_histogram(loads))));
  }
}

}  // namespace sw
