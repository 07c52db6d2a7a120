// What the routers of a checkpoint do: load per expert, drops, dead experts, in figures and words.
//
//   const CheckpointReader reader = open_checkpoint("runs/a");
//   const RouterReport report = router_report(reader, "runs/a");
//   fmt::print("{}", report_text(report));          // train/router_report_text.h
//
// The figures come from the telemetry that the checkpoint carries, so that the weights are not
// read, or from running the model over data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/moe/statistics.h"

namespace sw {

/// Telemetry rows that a report sums by default.
inline constexpr int64_t kReportSamples = 50;

/// One layer's figures at every sampled step of a run.
struct RouterHistory {
  std::vector<double> max_over_mean, entropy, dropped_share;
  std::vector<int64_t> dead;
};

struct LayerReport {
  RouterStatistics statistics;  // summed over the sampled steps that the report covers
  RouterHistory history;        // [T]; empty when the figures do not come from telemetry
  /// First sampled step from which on all experts that are dead now were dead; -1 when none is
  /// dead or the figures do not come from telemetry.
  int64_t dead_since = -1;
};

struct RouterReport {
  std::string checkpoint;  // as the user named it
  int64_t step = 0;
  std::string digest;
  std::vector<int64_t> history_steps;     // [T]
  int64_t first_step = 0, last_step = 0;  // of the samples that are summed
  int64_t samples = 0;                    // how many; 0: from data
  std::vector<std::string> data;          // files that were run through the model, if any
  std::vector<LayerReport> layers;        // sparse layers, encoder first
};

/// From telemetry: layers summed over the last `samples` sampled steps (all, when there are fewer).
/// A dense model gives a report without layers. Throws missing when the model has sparse layers but
/// the file no telemetry of them, corrupt when counts are impossible, usage unless samples >= 1.
RouterReport router_report(const CheckpointReader& reader, const std::string& name,
                           int64_t samples = kReportSamples);

/// The same from telemetry as such; `sparse_layers` and `experts_of` describe the model.
RouterReport router_report(const RouterTelemetry& telemetry, int64_t samples);

/// From running the model over token shards, with evaluation capacity and neither jitter nor
/// dropout; all files are looked at before the first is run. `max_tokens` > 0 bounds each file.
/// Throws as load_model and open_eval_set.
RouterReport evaluate_routers(const CheckpointReader& reader, const std::string& name,
                              const std::vector<std::string>& files, int64_t max_tokens = 0);

/// Name, step and digest; no layers.
RouterReport describe_checkpoint(const CheckpointReader& reader, const std::string& name);

/// Sparse layers of the model in the file.
int64_t sparse_layers(const CheckpointReader& reader);

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

/// How one layer's routing changed between two checkpoints of one model.
struct LayerDrift {
  std::string name;
  /// Share of the load that lies on other experts: half the sum of absolute differences, in [0, 1].
  double load = 0;
  /// Mean cosine between the old and the new router column of an expert; NaN when it is not known.
  double router_cosine = 0;
};

/// Layer by layer. Throws corrupt when the layers' names or numbers of experts differ.
std::vector<LayerDrift> router_drift(const RouterReport& before, const RouterReport& after);
/// Reads the routers' weights and fills in the cosines.
void add_router_cosines(const CheckpointReader& before, const CheckpointReader& after,
                        std::vector<LayerDrift>& drift);

}  // namespace sw
