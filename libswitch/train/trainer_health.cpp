// What the training loop does to notice trouble: spikes, slow ranks, ranks whose weights differ.
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/base/fault.h"
#include "libswitch/base/log.h"
#include "libswitch/train/replica_check.h"
#include "libswitch/train/trainer.h"

namespace sw {

void Trainer::announce(TrainPhase phase) {
  if (hooks_.watchdog == nullptr) return;
  const bool in_step =
      phase == TrainPhase::step || phase == TrainPhase::data || phase == TrainPhase::data_of_others;
  hooks_.watchdog->announce(phase, in_step ? step_ + 1 : step_);
}

double Trainer::seconds_in_collectives() const {
  return hooks_.job == nullptr ? 0.0 : hooks_.job->trace().seconds();
}

// SW_FAULT slow-x2: what the rank did by itself takes as long again.
void Trainer::keep_slow(double seconds, double in_collectives) const {
  FaultPlan* faults = active_faults();
  if (faults == nullptr || !faults->slow()) return;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds - in_collectives));
}

// An event of a step, with the samples it read.
void Trainer::tell_of_step(const char* event, int64_t step, const std::string& reason) {
  if (hooks_.before_log) hooks_.before_log();
  if (!metrics_) return;
  nlohmann::ordered_json json = event_json(event, step);
  json["reason"] = reason;
  json["first_sample"] = position(step - 1).ordinal;
  json["samples"] = objective_.rows();
  metrics_->append(json);
}

// Whether to learn from a finite step; all ranks see the same figures and decide alike.
void Trainer::judge(StepResult& result) {
  const std::string spike = spikes_.spike(result.loss, result.grad_norm);
  if (spike.empty()) return;
  switch (config_.on_spike) {
    case OnSpike::skip: result.fault = spike; return;
    case OnSpike::rollback: throw RollBack{step_, spike};
    case OnSpike::warn:
    case OnSpike::stop: break;
  }
  const int64_t step = step_ + 1;
  tell_of_step("spike", step, spike);
  log::warn("step {}: {}", step, spike);
  if (config_.on_spike == OnSpike::stop) {
    fail(ErrorKind::diverged,
         "step {}: {}; stopped as --on-spike stop asks for; go on from the last checkpoint of {} "
         "with --on-spike skip or warn, or a lower --lr",
         step, spike, run_.path().string());
  }
}

// To the newest checkpoint, and on from there with the data behind those of the step.
void Trainer::roll_back(const RollBack& from) {
  constexpr int64_t kAtMost = 2;  // from one checkpoint
  if (background_ != nullptr) finish_save();
  if (committed_step_ > rolled_back_from_) rollbacks_ = 0;
  if (committed_step_ < 0 || rollbacks_ == kAtMost) {
    if (metrics_) metrics_->append(event_json("diverged", from.step + 1));
    fail(
        ErrorKind::diverged,
        "training diverged: step {}: {}; {}; go on from an earlier checkpoint of {} with a lower "
        "--lr, or with --dtype fp32",
        from.step + 1, from.reason,
        committed_step_ < 0 ? "there is no checkpoint to go back to" : "two rollbacks did not help",
        run_.path().string());
  }
  ++rollbacks_;
  rolled_back_from_ = from.step;
  announce(TrainPhase::start);
  prefetcher_.reset();
  const int64_t passed_over = passed_over_;
  resume(CheckpointReader(run_.checkpoint_file(committed_step_)));
  const int64_t steps = from.step + 1 - step_;
  passed_over_ = passed_over;
  const uint64_t first_sample = position(step_).ordinal;
  passed_over_ += steps;
  interval_ = {};
  set_fault_step(step_);
  start_reading();
  plan_next_save();

  if (hooks_.before_log) hooks_.before_log();
  log::warn("step {}: {}; back to the checkpoint of step {}, and on behind the data of {} steps",
            from.step + 1, from.reason, step_, steps);
  if (!writes()) return;
  metrics_.reset();
  metrics_ = std::make_unique<MetricsFile>(run_.metrics_file(), step_, config_.first_step);
  if (tensorboard_) tensorboard_->go_back(step_);
  nlohmann::ordered_json json = event_json("rollback", step_);
  json["reason"] = from.reason;
  json["from_step"] = from.step + 1;
  json["first_sample"] = first_sample;
  json["samples"] = steps * objective_.rows();
  metrics_->append(json);
}

void Trainer::compare_times(double seconds, double in_collectives, TrainMetrics& metrics) {
  if (hooks_.watchdog != nullptr) hooks_.watchdog->took(TrainPhase::step, seconds);
  if (hosts_.empty()) return;
  const auto microseconds = [](double s) { return static_cast<int64_t>(s * 1e6); };
  std::vector<double> busy;
  for (const int64_t us :
       world_.all_gather_values(std::vector<int64_t>{microseconds(seconds - in_collectives)})) {
    busy.push_back(static_cast<double>(us) * 1e-6);
  }
  const StragglerWatch::Slowest slowest = stragglers_.add(busy);
  metrics.slowest_rank = slowest.rank;
  metrics.slowest_gap = slowest.gap;
  metrics.comm_share = in_collectives / seconds;
  const auto warning = stragglers_.take_warning();
  if (!warning || !writes()) return;
  const std::string& host = hosts_[static_cast<size_t>(warning->rank)];
  if (hooks_.before_log) hooks_.before_log();
  log::warn(
      "rank {} ({}) has been slow for {} steps: its own work takes {:.0f} % longer than the "
      "median rank's, and all wait for it",
      warning->rank, host, StragglerWatch::kPatience, 100 * warning->gap);
  nlohmann::ordered_json json = event_json("straggler", step_);
  json["rank"] = warning->rank;
  json["host"] = host;
  json["gap"] = warning->gap;
  metrics_->append(json);
}

void Trainer::compare_weights() {
  if (hosts_.empty() || !due(config_.check_replicas)) return;
  announce(TrainPhase::check);
  try {
    check_replicas(model_, step_, hooks_.job->host());
  } catch (const Error& error) {
    if (metrics_ && error.kind() == ErrorKind::replicas) {
      nlohmann::ordered_json json = event_json("replicas", step_);
      json["reason"] = error.what();
      metrics_->append(json);
    }
    throw;
  }
}

}  // namespace sw
