// The training loop: steps, evaluation, checkpoints, requests from outside.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "libswitch/base/timer.h"
#include "libswitch/data/prefetcher.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/io/checkpoint_writer.h"
#include "libswitch/train/checkpoint_save.h"
#include "libswitch/train/metrics.h"
#include "libswitch/train/objective.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/run_directory.h"
#include "libswitch/train/schedule.h"
#include "libswitch/train/signals.h"
#include "libswitch/train/spikes.h"
#include "libswitch/train/step.h"
#include "libswitch/train/stragglers.h"
#include "libswitch/train/telemetry.h"
#include "libswitch/train/tensorboard_log.h"
#include "libswitch/train/watchdog.h"

namespace sw {

struct TrainerConfig {
  // The run ends at whichever comes first; 0: no such limit.
  int64_t steps = 0;
  int64_t max_tokens = 0;  // real inputs and targets
  /// No step at all: evaluation and a checkpoint of the weights as they begin.
  bool untrained = false;
  /// The number of the step that a run begins at, where it goes on counting from another's: the
  /// schedule, the data and the limits above count from there.
  int64_t first_step = 0;
  /// The process stops, with a checkpoint, in time to be done after so many seconds.
  double max_seconds = 0;

  int64_t eval_every = 0;  // steps; 0: at the end only
  int64_t save_every = 0;  // steps; 0: at the end only
  int64_t keep_last = 3;
  int64_t log_every = 0;   // steps between lines of the log; 0: ten seconds; the first ten always
  int64_t max_skips = 10;  // steps in a row that the weights do not learn from
  int64_t max_save_failures = 3;
  /// Periodic checkpoints are written from a copy in memory while training goes on.
  bool async_checkpoint = false;
  bool tensorboard = false;       // events in the run folder
  double save_retry_seconds = 1;  // before another attempt at a checkpoint that must be

  int64_t check_replicas = 1000;  // steps between comparisons of the ranks' weights; 0: never
  OnSpike on_spike = OnSpike::warn;

  /// What evaluations are worth; the checkpoint worth most is kept as the run's best. Undefined:
  /// none is.
  std::function<double(const std::vector<Evaluation>&)> score;
  /// What the score is of; scores of different names do not compare.
  std::string score_name;

  Schedule schedule;
  StepConfig step;
  double flops_per_step = 0;  // forward and backward, for the share of peak
  double peak_flops = 0;      // per second; 0: not measured
};

/// What a tool may want to know while training runs. With several ranks only rank 0 reports.
struct TrainerHooks {
  std::function<void(const CommittedCheckpoint&)> committed;
  /// After every step.
  std::function<void(const TrainMetrics&, const LineFacts&)> stepped;
  /// Before a line of the log.
  std::function<void()> before_log;
  std::function<void()> reopen_log;
  /// The ranks, for their hosts and times in collectives, and this one's watchdog. Null: no such
  /// figures, no watchdog.
  World* job = nullptr;
  Watchdog* watchdog = nullptr;
  /// System calls of saves (tests).
  FileCalls file_calls;
};

enum class TrainOutcome {
  finished,  // all steps or tokens done
  stopped,   // on request, with a checkpoint: the same command line goes on
};

class Trainer {
 public:
  /// `meta` is the part of every checkpoint's metadata that does not change: configuration, preset,
  /// command line, tokenizer, attributes. Everything referred to must outlive the trainer. Every
  /// rank of the model's mesh has a trainer of its own and calls the same functions; rank 0 alone
  /// writes metrics, log lines and links.
  Trainer(const TrainerConfig& config, Model& model, Optimizer& optimizer,
          const Objective& objective, const RunDirectory& run, CheckpointMeta meta,
          TrainerHooks hooks = {});

  /// Goes on from a checkpoint: weights, moments, step, data position, telemetry. Throws corrupt
  /// when they are not this model's or optimizer's, usage when the data differ.
  void resume(const CheckpointReader& reader);

  /// Trains to the end, or until asked to stop. Throws diverged, io when saves keep failing, and
  /// what the data throws.
  TrainOutcome run(OutsideRequests& requests);

  int64_t step() const { return step_; }
  /// Steps of this run, from its first.
  int64_t steps_done() const { return step_ - config_.first_step; }
  int64_t tokens() const { return tokens_; }
  const Telemetry& telemetry() const { return telemetry_.telemetry(); }
  /// Of the model as it is now; empty when nothing was evaluated since the last step.
  const std::vector<Evaluation>& evaluations() const { return evaluations_; }
  /// Another model of the same mesh, on what this one is evaluated on. All ranks call it.
  std::vector<Evaluation> evaluate(const Model& other);
  /// Adds an event's line to metrics.jsonl.
  void note(const nlohmann::ordered_json& event);

 private:
  struct Interrupted {};
  // The step of that number, from 0, is not to be part of the run.
  struct RollBack {
    int64_t step;
    std::string reason;
  };
  // What the ranks tell each other between steps.
  struct Standing {
    bool waiting = false, stop = false, save = false;
  };

  bool writes() const { return world_.rank() == 0; }
  bool any_rank(bool own) const;
  Standing stand_together(Standing own);
  bool done() const;
  bool time_is_up(double margin_seconds) const;
  void poll();
  bool stop_wanted();
  void interrupt_if(bool stop);
  void start_reading();
  DataPosition position(int64_t step) const {
    return objective_.position(step - config_.first_step + passed_over_);
  }
  void take_batch(Batch& batch);
  void train_one_step();
  void append_metrics(const nlohmann::ordered_json& line);
  void record(const StepResult& result, double rate, double seconds, double wait,
              double in_collectives);
  void count_skip(const StepResult& result);
  // trainer_health.cpp
  void announce(TrainPhase phase);
  double seconds_in_collectives() const;
  void keep_slow(double seconds, double in_collectives) const;
  void judge(StepResult& result);
  void roll_back(const RollBack& from);
  void tell_of_step(const char* event, int64_t step, const std::string& reason);
  void compare_times(double seconds, double in_collectives, TrainMetrics& metrics);
  void compare_weights();
  void log_step(const TrainMetrics& metrics);
  LineFacts line_facts() const;
  bool due(int64_t every) const;
  bool is_judged() const;
  bool line_due() const;
  void plan_next_save();
  void evaluate();
  // trainer_saving.cpp
  void judge_evaluation();
  void link_best();
  void save_and_go_on();
  void save_or_fail();
  void sync_metrics();
  bool begin_save(CheckpointSave::Source source);
  bool finish_save();
  void count_save_failure(int64_t step, const std::string& reason);
  CheckpointMeta checkpoint_meta(double rate) const;

  TrainerConfig config_;
  Model& model_;
  Optimizer& optimizer_;
  const Objective& objective_;
  const RunDirectory& run_;
  Group& world_;
  CheckpointMeta meta_;
  TrainerHooks hooks_;

  // What a checkpoint keeps.
  int64_t step_ = 0;
  int64_t tokens_ = 0;
  int64_t consecutive_skips_ = 0;
  int64_t passed_over_ = 0;  // steps whose data rollbacks have left out
  TrainState train_;
  TelemetryLog telemetry_;
  SpikeWatch spikes_;
  std::string last_evaluation_;
  std::vector<Evaluation> evaluations_;
  double best_score_ = 0;
  int64_t best_step_ = -1;  // -1: none yet
  std::string best_name_;   // of its score

  // Attributes of a checkpoint.
  static constexpr const char* kSkipsAttribute = "consecutive_skips";
  static constexpr const char* kPassedOverAttribute = "steps_passed_over";
  static constexpr const char* kMeansAttribute = "steps_in_means";
  static constexpr const char* kNormAttribute = "grad_norm_ema";
  static constexpr const char* kBestStepAttribute = "best_step";
  static constexpr const char* kBestScoreAttribute = "best_score";
  static constexpr const char* kBestNameAttribute = "best_of";

  // Of this process.
  OutsideRequests* requests_ = nullptr;
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<TensorBoardLog> tensorboard_;
  std::unique_ptr<Prefetcher> prefetcher_;
  Batch batch_;
  StragglerWatch stragglers_;
  int64_t rollbacks_ = 0, rolled_back_from_ = -1;
  std::vector<std::string> hosts_;  // by rank
  Timer since_start_, since_commit_, since_line_;
  bool committed_ = false;                      // something, in this process
  int64_t committed_step_ = -1;                 // of the newest checkpoint
  int64_t next_save_ = 0;                       // step of the next periodic checkpoint
  bool best_waits_ = false;                     // the step's checkpoint has to know of its score
  int64_t save_failures_ = 0;                   // in a row
  std::unique_ptr<CheckpointSave> background_;  // being written, or about to be
  int64_t background_step_ = -1;
  Timer since_save_began_;
  double save_seconds_ = 0, step_seconds_ = 0;  // of the latest save; smoothed
  std::string stop_reason_;
  struct Interval {
    int64_t steps = 0, finite = 0;
    double loss = 0, seconds = 0, wait = 0, tokens = 0;
  } interval_;  // since the last line of the log
};

}  // namespace sw
