#include "libswitch/train/router_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/evaluation.h"

namespace sw {
namespace {

constexpr double kDeadShare = 0.01;
constexpr double kMuchDropped = 0.05;
constexpr double kOverload = 2.0;
constexpr double kLowEntropy = 0.8;
constexpr double kUndecided = 1.1;

// Where a layer's router lies in the checkpoint.
std::string router_path(const std::string& layer) { return "/model/" + layer + "/moe/router"; }

bool is_router(const TensorEntry& entry) {
  return entry.path.starts_with("/model/") && entry.path.ends_with("/moe/router");
}

// A name that a terminal can show, whatever the file says.
std::string printable(std::string name) {
  for (char& c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return name;
}

// One layer of one row of telemetry.
RouterStatistics row_statistics(const RouterTelemetry& t, size_t row, size_t layer,
                                int64_t experts) {
  const size_t cell = row * t.layer_name.size() + layer;
  const size_t first = cell * static_cast<size_t>(t.experts);
  RouterStatistics s;
  s.name = printable(t.layer_name[layer]);
  s.experts = experts;
  double probability = 0;
  int64_t choices = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const uint64_t count = t.tokens[first + static_cast<size_t>(e)];
    // Sums of 2^40 over any sampled steps and experts that fit a file fit 63 bits.
    SW_CHECK(count < (uint64_t{1} << 40), corrupt,
             "/telemetry/router/tokens: {} tokens for expert {} of {} at step {}, expected less "
             "than 2^40",
             count, e, s.name, t.step[row]);
    s.chosen.push_back(static_cast<int64_t>(count));
    choices += static_cast<int64_t>(count);
    s.probability.push_back(static_cast<double>(t.prob_sum[first + static_cast<size_t>(e)]));
    probability += s.probability.back();
  }
  SW_CHECK(t.dropped[cell] < (uint64_t{1} << 40), corrupt,
           "/telemetry/router/dropped: {} tokens of {} at step {}, expected less than 2^40",
           t.dropped[cell], s.name, t.step[row]);
  s.kept = s.chosen;
  s.dropped_tokens = static_cast<int64_t>(t.dropped[cell]);
  // A token's probabilities sum to one, so their sum counts tokens for any number of choices.
  const bool counts = std::isfinite(probability) && probability >= 0 && probability < 0x1p40;
  s.tokens = counts ? std::llround(probability) : choices + s.dropped_tokens;
  s.capacity = static_cast<int64_t>(std::min<uint64_t>(t.capacity[cell], uint64_t{1} << 62));
  s.gate_sum = static_cast<double>(t.confidence[cell]) * static_cast<double>(choices);
  s.entropy_sum = static_cast<double>(t.entropy[cell]) * static_cast<double>(s.tokens);
  s.add_losses(static_cast<double>(t.aux[cell]), static_cast<double>(t.z[cell]));
  return s;
}

double choices(const RouterStatistics& s) {
  return static_cast<double>(std::accumulate(s.chosen.begin(), s.chosen.end(), int64_t{0}));
}

LayerReport layer_report(const RouterTelemetry& t, size_t layer, int64_t experts, size_t samples) {
  LayerReport report;
  const size_t rows = t.step.size();
  std::vector<size_t> last_alive(static_cast<size_t>(experts), 0);  // row + 1
  for (size_t row = 0; row < rows; ++row) {
    const RouterStatistics s = row_statistics(t, row, layer, experts);
    report.history.max_over_mean.push_back(s.max_over_mean());
    report.history.entropy.push_back(s.load_entropy());
    report.history.dropped_share.push_back(s.dropped_share());
    report.history.dead.push_back(s.dead(kDeadShare));
    const double bound = kDeadShare * choices(s) / static_cast<double>(experts);
    for (size_t e = 0; e < last_alive.size(); ++e) {
      if (s.chosen[e] > 0 && static_cast<double>(s.chosen[e]) >= bound) last_alive[e] = row + 1;
    }
    if (row + samples >= rows) report.statistics.merge(s);
  }
  size_t since = 0;
  bool any = false;
  const double bound = kDeadShare * choices(report.statistics) / static_cast<double>(experts);
  for (size_t e = 0; e < last_alive.size(); ++e) {
    const int64_t count = report.statistics.chosen[e];
    if (count > 0 && static_cast<double>(count) >= bound) continue;
    any = true;
    since = std::max(since, last_alive[e]);
  }
  if (any) report.dead_since = t.step[std::min(since, rows - 1)];
  return report;
}

RouterReport report_of(const RouterTelemetry& t, int64_t samples,
                       const std::vector<int64_t>& experts) {
  SW_CHECK(samples >= 1, usage, "router report: {} samples, expected at least 1", samples);
  RouterReport report;
  if (t.step.empty()) return report;
  report.history_steps = t.step;
  report.samples = std::min(samples, static_cast<int64_t>(t.step.size()));
  report.first_step = t.step[t.step.size() - static_cast<size_t>(report.samples)];
  report.last_step = t.step.back();
  for (size_t layer = 0; layer < t.layer_name.size(); ++layer) {
    report.layers.push_back(
        layer_report(t, layer, experts[layer], static_cast<size_t>(report.samples)));
  }
  return report;
}

std::string faults(const LayerReport& layer) {
  const RouterStatistics& s = layer.statistics;
  std::vector<std::string> found;
  const int64_t dead = s.dead(kDeadShare);
  if (s.tokens == 0) return s.name + ": no token was routed";
  if (dead > 0) {
    found.push_back(
        fmt::format("{} of {} experts dead{}", dead, s.experts,
                    layer.dead_since >= 0 ? fmt::format(" since step {}", layer.dead_since) : ""));
  }
  if (s.max_over_mean() > kOverload) {
    found.push_back(fmt::format("expert {} takes {:.1f} times an even share",
                                experts_by_load(s).front(), s.max_over_mean()));
  }
  if (s.load_entropy() < kLowEntropy) {
    found.push_back(fmt::format("load is concentrated (entropy {:.2f})", s.load_entropy()));
  }
  if (s.dropped_share() > kMuchDropped) {
    found.push_back(fmt::format("drops {:.1f} % of its tokens", 100 * s.dropped_share()));
  }
  if (s.experts > 1 && s.confidence() * static_cast<double>(s.experts) < kUndecided) {
    found.push_back(fmt::format("router does not decide (mean gate {:.3f}, {:.3f} is chance)",
                                s.confidence(), 1.0 / static_cast<double>(s.experts)));
  }
  if (found.empty()) return "";
  return fmt::format("{}: {}", s.name, fmt::join(found, "; "));
}

// Mean over experts (columns) of the cosine between two routers [D, E].
double mean_cosine(const Tensor& a, const Tensor& b) {
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  if (a.dtype() != DType::f32 || b.dtype() != DType::f32 || !(a.shape() == b.shape()) ||
      a.shape().rank() != 2) {
    return unknown;
  }
  const int64_t width = a.shape()[0], experts = a.shape()[1];
  std::vector<double> ab(static_cast<size_t>(experts)), aa(ab), bb(ab);
  for (int64_t d = 0; d < width; ++d) {
    const float* x = a.data<float>() + d * experts;
    const float* y = b.data<float>() + d * experts;
    for (int64_t e = 0; e < experts; ++e) {
      const auto at = static_cast<size_t>(e);
      ab[at] += static_cast<double>(x[e]) * static_cast<double>(y[e]);
      aa[at] += static_cast<double>(x[e]) * static_cast<double>(x[e]);
      bb[at] += static_cast<double>(y[e]) * static_cast<double>(y[e]);
    }
  }
  double sum = 0;
  for (size_t e = 0; e < ab.size(); ++e) {
    const double norm = std::sqrt(aa[e] * bb[e]);
    sum += norm > 0 ? ab[e] / norm : 0;
  }
  return experts > 0 ? sum / static_cast<double>(experts) : unknown;
}

}  // namespace

int64_t sparse_layers(const CheckpointReader& reader) {
  const auto& entries = reader.entries();
  return std::count_if(entries.begin(), entries.end(), is_router);
}

RouterReport describe_checkpoint(const CheckpointReader& reader, const std::string& name) {
  RouterReport report;
  report.checkpoint = name;
  report.step = reader.meta().step;
  report.digest = reader.digest();
  return report;
}

RouterReport router_report(const RouterTelemetry& telemetry, int64_t samples) {
  return report_of(telemetry, samples,
                   std::vector<int64_t>(telemetry.layer_name.size(), telemetry.experts));
}

RouterReport router_report(const CheckpointReader& reader, const std::string& name,
                           int64_t samples) {
  SW_CHECK(samples >= 1, usage, "router report: {} samples, expected at least 1", samples);
  RouterReport out = describe_checkpoint(reader, name);
  const int64_t sparse = sparse_layers(reader);
  if (sparse == 0) return out;
  const RouterTelemetry telemetry = reader.read_telemetry().router;
  SW_CHECK(!telemetry.step.empty() && !telemetry.layer_name.empty(), missing,
           "{}: has {} sparse layers but no router telemetry, which training writes; run the model "
           "over tokens with --data FILE.swt",
           name, sparse);
  std::vector<int64_t> experts;
  for (const std::string& layer : telemetry.layer_name) {
    const std::string path = router_path(layer);
    SW_CHECK(reader.contains(path), corrupt, "{}: telemetry of layer '{}', but no tensor {}", name,
             printable(layer), printable(path));
    const Shape& shape = reader.entry(path).shape;
    SW_CHECK(shape.rank() == 2 && shape[1] >= 1 && shape[1] <= telemetry.experts, corrupt,
             "{}: {} has shape {}, expected [d_model, expert] with at most the {} experts of "
             "the telemetry",
             name, path, shape.str(), telemetry.experts);
    experts.push_back(shape[1]);
  }
  RouterReport figures = report_of(telemetry, samples, experts);
  out.history_steps = std::move(figures.history_steps);
  out.first_step = figures.first_step;
  out.last_step = figures.last_step;
  out.samples = figures.samples;
  out.layers = std::move(figures.layers);
  return out;
}

RouterReport evaluate_routers(const CheckpointReader& reader, const std::string& name,
                              const std::vector<std::string>& files, int64_t max_tokens) {
  RouterReport report = describe_checkpoint(reader, name);
  report.data = files;
  const DatasetOptions options = trained_dataset_options(reader);
  std::vector<std::unique_ptr<EvalSet>> sets;
  for (const std::string& file : files) {
    sets.push_back(open_eval_set(reader, file, options, max_tokens));
  }
  if (sparse_layers(reader) == 0) return report;
  const std::unique_ptr<Model> model = load_model(reader);
  for (size_t i = 0; i < sets.size(); ++i) {
    const Evaluation evaluation = evaluate_set(*model, *sets[i], files[i]);
    report.layers.resize(evaluation.layers.size());
    for (size_t l = 0; l < report.layers.size(); ++l) {
      report.layers[l].statistics.merge(evaluation.layers[l]);
    }
  }
  return report;
}

std::vector<Verdict> verdicts(const RouterReport& report) {
  if (report.layers.empty()) return {{"a dense model: it has no sparse layers", true}};
  std::vector<Verdict> lines;
  double max_over_mean = 0, dropped = 0;
  for (const LayerReport& layer : report.layers) {
    max_over_mean = std::max(max_over_mean, layer.statistics.max_over_mean());
    dropped = std::max(dropped, layer.statistics.dropped_share());
    const std::string found = faults(layer);
    if (!found.empty()) lines.push_back({found, false});
  }
  if (!lines.empty()) return lines;
  const auto count = report.layers.size();
  return {{fmt::format(
               "{} in balance: max/mean at most {:.2f}, no dead expert, at most {:.1f} % of "
               "tokens dropped",
               count == 1 ? "the sparse layer is" : fmt::format("all {} sparse layers are", count),
               max_over_mean, 100 * dropped),
           true}};
}

std::vector<int64_t> experts_by_load(const RouterStatistics& statistics) {
  std::vector<int64_t> order(static_cast<size_t>(statistics.experts));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return statistics.chosen[static_cast<size_t>(a)] > statistics.chosen[static_cast<size_t>(b)];
  });
  return order;
}

std::vector<LayerDrift> router_drift(const RouterReport& before, const RouterReport& after) {
  SW_CHECK(before.layers.size() == after.layers.size(), corrupt,
           "cannot compare {} with {}: {} sparse layers and {}", before.checkpoint,
           after.checkpoint, before.layers.size(), after.layers.size());
  std::vector<LayerDrift> drift;
  for (size_t i = 0; i < before.layers.size(); ++i) {
    const RouterStatistics& a = before.layers[i].statistics;
    const RouterStatistics& b = after.layers[i].statistics;
    SW_CHECK(a.name == b.name && a.experts == b.experts, corrupt,
             "cannot compare {} with {}: sparse layer {} is {} with {} experts, and {} with {}",
             before.checkpoint, after.checkpoint, i, a.name, a.experts, b.name, b.experts);
    double moved = 0;
    const double of_a = std::max(1.0, choices(a)), of_b = std::max(1.0, choices(b));
    for (size_t e = 0; e < a.chosen.size(); ++e) {
      moved += std::abs(static_cast<double>(a.chosen[e]) / of_a -
                        static_cast<double>(b.chosen[e]) / of_b);
    }
    drift.push_back({a.name, moved / 2, std::numeric_limits<double>::quiet_NaN()});
  }
  return drift;
}

void add_router_cosines(const CheckpointReader& before, const CheckpointReader& after,
                        std::vector<LayerDrift>& drift) {
  for (LayerDrift& layer : drift) {
    const std::string path = router_path(layer.name);
    if (!before.contains(path) || !after.contains(path)) continue;
    layer.router_cosine = mean_cosine(before.read(path), after.read(path));
  }
}

}  // namespace sw
