#include "libswitch/report/router_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/report/load_figures.h"

namespace sw {
namespace {

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
  // 0 where it is not known, as in files from elsewhere.
  s.capacity = static_cast<int64_t>(std::min<uint64_t>(t.capacity[cell], uint64_t{1} << 40));
  s.slots = s.capacity * experts;
  s.gate_sum = static_cast<double>(t.confidence[cell]) * static_cast<double>(choices);
  s.entropy_sum = static_cast<double>(t.entropy[cell]) * static_cast<double>(s.tokens);
  s.add_losses(static_cast<double>(t.aux[cell]), static_cast<double>(t.z[cell]));
  return s;
}

double choices(const RouterStatistics& s) {
  return static_cast<double>(std::accumulate(s.chosen.begin(), s.chosen.end(), int64_t{0}));
}

// From top-1 telemetry: there every token that is not dropped fills a slot.
double capacity_use(const RouterStatistics& s) {
  const double tokens = static_cast<double>(s.tokens);
  if (s.slots <= 0 || !(choices(s) < 1.001 * tokens)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double use =
      (choices(s) - static_cast<double>(s.dropped_tokens)) / static_cast<double>(s.slots);
  return use <= 1 ? use : std::numeric_limits<double>::quiet_NaN();
}

// Adds one sampled step to the column of the course that it belongs to.
void add_to_course(const RouterStatistics& s, float weight, float* column) {
  const double even = choices(s) / static_cast<double>(s.experts);
  if (!(even > 0)) return;
  for (size_t e = 0; e < s.chosen.size(); ++e) {
    column[e] += weight * static_cast<float>(static_cast<double>(s.chosen[e]) / even);
  }
}

// Equal parts of `rows`, a part per column: the first row of column c.
size_t course_row(size_t rows, size_t columns, size_t c) { return c * rows / columns; }
size_t course_columns(size_t rows) { return std::min(rows, static_cast<size_t>(kCourseColumns)); }

LayerReport layer_report(const RouterTelemetry& t, size_t layer, int64_t experts, size_t samples) {
  LayerReport report;
  const size_t rows = t.step.size();
  const size_t columns = course_columns(rows);
  report.course.resize(columns * static_cast<size_t>(experts));
  size_t column = 0;
  std::vector<size_t> last_alive(static_cast<size_t>(experts), 0);  // row + 1
  for (size_t row = 0; row < rows; ++row) {
    const RouterStatistics s = row_statistics(t, row, layer, experts);
    report.history.max_over_mean.push_back(s.max_over_mean());
    report.history.entropy.push_back(s.load_entropy());
    report.history.dropped_share.push_back(s.dropped_share());
    report.history.confidence.push_back(s.confidence());
    report.history.dead.push_back(s.dead(kDeadShare));
    report.history.starving.push_back(load_figures(s).starving);
    if (row == course_row(rows, columns, column + 1)) ++column;
    const size_t of_column =
        course_row(rows, columns, column + 1) - course_row(rows, columns, column);
    add_to_course(s, 1.0f / static_cast<float>(of_column),
                  report.course.data() + column * static_cast<size_t>(experts));
    const double bound = kDeadShare * choices(s) / static_cast<double>(experts);
    for (size_t e = 0; e < last_alive.size(); ++e) {
      if (s.chosen[e] > 0 && static_cast<double>(s.chosen[e]) >= bound) last_alive[e] = row + 1;
    }
    if (row + samples >= rows) report.statistics.merge(s);
  }
  report.capacity_use = capacity_use(report.statistics);
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
  for (size_t c = 0; c < course_columns(t.step.size()); ++c) {
    report.course_steps.push_back(
        t.step[course_row(t.step.size(), course_columns(t.step.size()), c)]);
  }
  report.samples = std::min(samples, static_cast<int64_t>(t.step.size()));
  report.first_step = t.step[t.step.size() - static_cast<size_t>(report.samples)];
  report.last_step = t.step.back();
  for (size_t layer = 0; layer < t.layer_name.size(); ++layer) {
    report.layers.push_back(
        layer_report(t, layer, experts[layer], static_cast<size_t>(report.samples)));
  }
  return report;
}

}  // namespace

std::string router_path(const std::string& layer) { return "/model/" + layer + "/moe/router"; }

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
  out.course_steps = std::move(figures.course_steps);
  out.first_step = figures.first_step;
  out.last_step = figures.last_step;
  out.samples = figures.samples;
  out.layers = std::move(figures.layers);
  return out;
}

void add_history(const CheckpointReader& reader, RouterReport& report) {
  if (reader.read_telemetry().router.step.empty()) return;
  RouterReport telemetry = router_report(reader, report.checkpoint);
  if (telemetry.layers.size() != report.layers.size()) return;
  report.history_steps = std::move(telemetry.history_steps);
  report.course_steps = std::move(telemetry.course_steps);
  for (size_t i = 0; i < report.layers.size(); ++i) {
    report.layers[i].history = std::move(telemetry.layers[i].history);
    report.layers[i].course = std::move(telemetry.layers[i].course);
  }
}

std::vector<int64_t> experts_by_load(const RouterStatistics& statistics) {
  std::vector<int64_t> order(static_cast<size_t>(statistics.experts));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return statistics.chosen[static_cast<size_t>(a)] > statistics.chosen[static_cast<size_t>(b)];
  });
  return order;
}

}  // namespace sw
