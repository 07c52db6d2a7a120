// Figures of a run: lines of metrics.jsonl and of the log.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "libswitch/base/file.h"
#include "libswitch/train/objective.h"
#include "libswitch/train/step.h"

namespace sw {

/// One step as it is reported.
struct TrainMetrics {
  int64_t step = 0;  // updates done, this one included
  double loss = 0;   // what was minimised; not finite when the step was skipped
  double cross_entropy = 0;
  double aux_loss = 0, z_loss = 0;  // router losses as they enter `loss`
  // Of a student: its cross-entropy with the teacher, and the teacher's with the labels; 0: neither
  double soft_cross_entropy = 0, teacher_cross_entropy = 0;
  double neg_log_perplexity = 0;  // of the step's targets
  double grad_norm = 0, lr = 0;
  int64_t tokens = 0;  // real inputs and targets so far
  double tokens_per_second = 0;
  double share_of_peak = 0;  // 0: peak not measured
  double dropped_share = 0;
  double max_over_mean_load = 0;  // of the worst layer; 0 without sparse layers
  int64_t dead_experts = 0;       // over all layers, below 1 % of an even load
  double data_wait_share = 0;     // of the step's time
  double step_seconds = 0;
  // With several ranks only.
  int64_t slowest_rank = -1;  // by time outside of collectives
  double slowest_gap = 0;     // that time over the ranks' median, minus 1
  double comm_share = 0;      // of rank 0's step: in collectives, waiting and working
  std::string fault;          // why the step was skipped; empty: it was not
};

/// Fills in what follows from a step's result; times, lr and totals stay to be set.
TrainMetrics train_metrics(int64_t step, const StepResult& result);

/// Objects of metrics.jsonl: kind, step, time (seconds since 1970, UTC), then the figures at full
/// precision; a figure that is not finite is null.
nlohmann::ordered_json to_json(const TrainMetrics& metrics);
nlohmann::ordered_json to_json(const Evaluation& evaluation, int64_t step);
/// {"kind": "event", "event": name, "step", "time"}.
nlohmann::ordered_json event_json(const std::string& name, int64_t step);

/// metrics.jsonl, appended to line by line.
class MetricsFile {
 public:
  /// Opens for going on after `step`: everything from the first line of a later step on is cut off,
  /// and so is a torn last line. The run began after `first_step`. Throws cannot_create, io.
  MetricsFile(const std::filesystem::path& path, int64_t step, int64_t first_step = 0);
  /// Adds a line. When the disk does not take it (a warning tells), it is kept and written with a
  /// later one: the file never holds part of a line in its middle.
  void append(const nlohmann::ordered_json& object);
  /// Everything appended so far is on the disk when this returns. Throws io.
  void sync();
  /// Whether the file holds evaluations of the step that it was opened for.
  bool has_evaluation() const { return has_evaluation_; }

 private:
  void flush();

  std::filesystem::path path_;
  FileDescriptor fd_;
  int64_t bytes_ = 0;    // of whole lines in the file
  std::string pending_;  // lines not written yet
  bool warned_ = false;
  bool has_evaluation_ = false;
};

/// Figures of a line of the log that are not of a single step.
struct LineFacts {
  int64_t first_step = 0;  // that the run began after
  int64_t steps = 0;       // the number of its last step; 0: unknown
  /// Share of the run's steps that are done, from 0 to 1; 0 when unknown.
  double share_done(int64_t step) const;
  double checkpoint_age = -1;  // seconds since the last commit of this process; < 0: none
  double eta = -1;             // seconds; < 0: unknown
  int64_t memory_bytes = 0;    // peak resident
  int64_t skipped = 0;         // steps skipped so far
};

/// "step 1200/6000 20.0% | loss 2.184 | aux 1.02e-2 z 0 | gnorm 0.42 | lr 1.00e-3 | 41.2k tok/s |
/// mfu 51.2% | drop 1.2% bal 1.18 dead 0 | mem 1.2G | data 0.3% ckpt 12m | eta 6d04h".
std::string train_line(const TrainMetrics& metrics, const LineFacts& facts);
std::string evaluation_line(const Evaluation& evaluation, int64_t step);

/// "6d04h", "1h07m", "12m30s", "8s".
std::string rough_duration(double seconds);
/// "412.3k", "1.23M".
std::string rough_count(double count);

}  // namespace sw
