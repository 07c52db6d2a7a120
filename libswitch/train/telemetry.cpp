#include "libswitch/train/telemetry.h"

#include <algorithm>
#include <cmath>

namespace sw {
namespace {

// Drops every second row of the older half of a series with `width` values a row.
template <class T>
void thin(std::vector<T>& values, int64_t rows, int64_t width) {
  const int64_t half = rows / 2;
  int64_t to = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (row < half && row % 2 == 1) continue;
    std::copy_n(values.begin() + row * width, width, values.begin() + to * width);
    ++to;
  }
  values.resize(static_cast<size_t>(to * width));
}

// Entropy in nats of a token's probabilities, mean over tokens.
double mean_entropy(const RouterStatistics& layer) {
  return layer.tokens > 0 ? layer.entropy_sum / static_cast<double>(layer.tokens) : 0.0;
}

}  // namespace

void TelemetryLog::add(int64_t step, const StepResult& result, double learning_rate,
                       double tokens_per_second) {
  TrainTelemetry& train = telemetry_.train;
  train.step.push_back(step);
  train.loss.push_back(result.loss);
  train.lr.push_back(learning_rate);
  train.grad_norm.push_back(result.grad_norm);
  train.tok_s.push_back(tokens_per_second);
  const auto rows = static_cast<int64_t>(train.step.size());
  if (rows > kMaxRows) {
    thin(train.step, rows, 1);
    for (auto* series : {&train.loss, &train.lr, &train.grad_norm, &train.tok_s}) {
      thin(*series, rows, 1);
    }
  }
  // A step that ended in numbers that are not finite has no complete statistics.
  if (result.finite && !result.layers.empty()) add_router_row(step, result.layers);
}

void TelemetryLog::add_router_row(int64_t step, const std::vector<RouterStatistics>& layers) {
  RouterTelemetry& router = telemetry_.router;
  const auto l = static_cast<int64_t>(layers.size());
  if (router.layer_name.empty()) {
    for (const RouterStatistics& layer : layers) {
      router.layer_name.push_back(layer.name);
      router.experts = std::max(router.experts, layer.experts);
    }
  }
  const int64_t experts = router.experts;
  router.step.push_back(step);
  for (const RouterStatistics& layer : layers) {
    for (int64_t e = 0; e < experts; ++e) {
      const bool real = e < layer.experts;
      const auto at = static_cast<size_t>(e);
      router.tokens.push_back(real ? static_cast<uint64_t>(layer.chosen[at]) : 0);
      router.prob_sum.push_back(real ? static_cast<float>(layer.probability[at]) : 0.0f);
    }
    router.dropped.push_back(static_cast<uint64_t>(layer.dropped_tokens));
    router.capacity.push_back(
        static_cast<uint64_t>(layer.slots / std::max<int64_t>(1, layer.experts)));
    router.entropy.push_back(static_cast<float>(mean_entropy(layer)));
    router.confidence.push_back(static_cast<float>(layer.confidence()));
    router.aux.push_back(static_cast<float>(layer.aux()));
    router.z.push_back(static_cast<float>(layer.z()));
  }
  const auto rows = static_cast<int64_t>(router.step.size());
  const int64_t row_bytes = l * experts * 12 + l * 32;
  if (rows <= std::clamp(kMaxRouterBytes / row_bytes, kMinRows, kMaxRows)) return;
  thin(router.step, rows, 1);
  thin(router.tokens, rows, l * experts);
  thin(router.prob_sum, rows, l * experts);
  for (auto* series : {&router.dropped, &router.capacity}) thin(*series, rows, l);
  for (auto* series : {&router.entropy, &router.confidence, &router.aux, &router.z}) {
    thin(*series, rows, l);
  }
}

}  // namespace sw
