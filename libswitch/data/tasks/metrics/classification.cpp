#include "libswitch/data/tasks/metrics/classification.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

namespace sw {
namespace {

double percent_of(double part, double whole) { return whole > 0 ? 100.0 * part / whole : 0.0; }

// F1 of one class: 2 TP / (2 TP + FP + FN).
double f1(std::span<const int32_t> targets, std::span<const int32_t> predictions, int32_t of) {
  int64_t both = 0, either = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    both += targets[i] == of && predictions[i] == of;
    either += (targets[i] == of) + (predictions[i] == of);
  }
  return percent_of(2.0 * static_cast<double>(both), static_cast<double>(either));
}

std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double shared = static_cast<double>(begin + 1 + end) / 2;  // mean of begin + 1 .. end
    for (; begin < end; ++begin) out[order[begin]] = shared;
  }
  return out;
}

}  // namespace

double accuracy(std::span<const int32_t> targets, std::span<const int32_t> predictions) {
  int64_t equal = 0;
  for (size_t i = 0; i < targets.size(); ++i) equal += targets[i] == predictions[i];
  return percent_of(static_cast<double>(equal), static_cast<double>(targets.size()));
}

double binary_f1(std::span<const int32_t> targets, std::span<const int32_t> predictions) {
  std::vector<int32_t> valid(predictions.begin(), predictions.end());
  for (size_t i = 0; i < valid.size(); ++i) {
    if (valid[i] != 0 && valid[i] != 1) valid[i] = 1 - targets[i];
  }
  return f1(targets, valid, 1);
}

double mean_class_f1(std::span<const int32_t> targets, std::span<const int32_t> predictions,
                     int32_t classes) {
  double sum = 0;
  for (int32_t c = 0; c < classes; ++c) sum += f1(targets, predictions, c);
  return sum / classes;
}

double matthews_correlation(std::span<const int32_t> targets,
                            std::span<const int32_t> predictions) {
  std::map<int32_t, std::pair<double, double>> count;  // per class: targets, predictions
  double correct = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    correct += targets[i] == predictions[i];
    count[targets[i]].first += 1;
    count[predictions[i]].second += 1;
  }
  const auto n = static_cast<double>(targets.size());
  double both = 0, of_targets = 0, of_predictions = 0;
  for (const auto& [c, counts] : count) {
    both += counts.first * counts.second;
    of_targets += counts.first * counts.first;
    of_predictions += counts.second * counts.second;
  }
  const double spread = (n * n - of_targets) * (n * n - of_predictions);
  return spread > 0 ? 100.0 * (correct * n - both) / std::sqrt(spread) : 0.0;
}

double pearson_correlation(std::span<const double> targets, std::span<const double> predictions) {
  const auto n = static_cast<double>(targets.size());
  const double mean_target = std::accumulate(targets.begin(), targets.end(), 0.0) / n;
  const double mean_prediction = std::accumulate(predictions.begin(), predictions.end(), 0.0) / n;
  double together = 0, of_targets = 0, of_predictions = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    const double x = targets[i] - mean_target, y = predictions[i] - mean_prediction;
    together += x * y, of_targets += x * x, of_predictions += y * y;
  }
  const auto constant = [](std::span<const double> v) {
    return std::all_of(v.begin(), v.end(), [&](double x) { return x == v.front(); });
  };
  if (targets.empty() || constant(targets) || constant(predictions)) return 0;
  return 100.0 * std::clamp(together / std::sqrt(of_targets * of_predictions), -1.0, 1.0);
}

double spearman_correlation(std::span<const double> targets, std::span<const double> predictions) {
  return pearson_correlation(ranks(targets), ranks(predictions));
}

}  // namespace sw
