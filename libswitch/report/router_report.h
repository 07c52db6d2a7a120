// What the routers of a checkpoint do: load per expert, drops, dead experts, in figures and words.
//
//   const CheckpointReader reader = open_checkpoint("runs/a");
//   const RouterReport report = router_report(reader, "runs/a");
//   fmt::print("{}", report_text(report));          // report/report_text.h
//
// The figures come from the telemetry that the checkpoint carries, so that the weights are not
// read, or from running the model over data.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/moe/statistics.h"
#include "libswitch/report/text_routing.h"

namespace sw {

/// Telemetry rows that a report sums by default.
inline constexpr int64_t kReportSamples = 50;
/// Columns that the course of single experts is drawn in at most.
inline constexpr int64_t kCourseColumns = 96;

/// One layer's figures at every sampled step of a run, [T] each.
struct RouterHistory {
  std::vector<double> max_over_mean, entropy, dropped_share, confidence;
  std::vector<int64_t> dead, starving;
};

struct LayerReport {
  RouterStatistics statistics;  // summed over the sampled steps that the report covers
  /// Share of the slots that were filled; NaN when it is not known (telemetry of top-2 routing).
  double capacity_use = std::numeric_limits<double>::quiet_NaN();
  RouterHistory history;  // empty when the figures do not come from telemetry
  /// Every expert's load over the mean, [columns, E], of equal parts of the history.
  std::vector<float> course;
  /// First sampled step from which on all experts that are dead now were dead; -1 when none is
  /// dead or the figures do not come from telemetry.
  int64_t dead_since = -1;
  std::shared_ptr<const LayerTokens> tokens;  // null when the figures do not come from data
};

struct RouterReport {
  std::string checkpoint;  // as the user named it
  int64_t step = 0;
  std::string digest;
  std::vector<int64_t> history_steps;     // [T]
  std::vector<int64_t> course_steps;      // [columns]: the first step of each
  int64_t first_step = 0, last_step = 0;  // of the samples that are summed
  int64_t samples = 0;                    // how many; 0: from data
  std::vector<DataDomain> data;           // what was run through the model, if anything
  std::shared_ptr<const TextRouting> text;
  std::vector<LayerReport> layers;  // sparse layers, encoder first
};

/// From telemetry: layers summed over the last `samples` sampled steps (all, when there are fewer).
/// A dense model gives a report without layers. Throws missing when the model has sparse layers but
/// the file no telemetry of them, corrupt when counts are impossible, usage unless samples >= 1.
RouterReport router_report(const CheckpointReader& reader, const std::string& name,
                           int64_t samples = kReportSamples);

/// The same from telemetry as such; every layer has all its experts.
RouterReport router_report(const RouterTelemetry& telemetry, int64_t samples);

struct RouterEvaluation {
  std::vector<DataDomain> data;
  int64_t max_tokens = 0;   // of each file; 0: all
  bool keep_paths = false;  // LayerTokens::path, to compare two checkpoints
  /// Whose lengths and corruption are used; null: those of the checkpoint itself.
  const CheckpointReader* as_trained = nullptr;
};

/// From running the model over token shards, with evaluation capacity and neither jitter nor
/// dropout; all files are looked at before the first is run. Throws as load_model and
/// open_eval_set.
RouterReport evaluate_routers(const CheckpointReader& reader, const std::string& name,
                              const RouterEvaluation& how);

/// Gives a report from data the history and courses of the same checkpoint's telemetry, where that
/// has any.
void add_history(const CheckpointReader& reader, RouterReport& report);

/// Name, step and digest; no layers.
RouterReport describe_checkpoint(const CheckpointReader& reader, const std::string& name);

/// Sparse layers of the model in the file.
int64_t sparse_layers(const CheckpointReader& reader);

/// Where a layer's router lies in a checkpoint.
std::string router_path(const std::string& layer);

struct Verdict {
  std::string text;
  bool good = true;
};

/// What to know first, a line each: for every layer that is out of balance what is wrong, or one
/// line that all is well. A layer is out of balance when it has dead experts (below 1 % of an even
/// share), drops more than 5 % of its tokens, has an expert with more than twice an even share, a
/// normalised load entropy below 0.8, or a router that does not decide (mean gate below 1.1 times
/// that of a coin with E sides).
std::vector<Verdict> verdicts(const RouterReport& report);

/// Expert indices by falling load; equal loads by rising index.
std::vector<int64_t> experts_by_load(const RouterStatistics& statistics);

}  // namespace sw
