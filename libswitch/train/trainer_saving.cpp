// How the training loop saves: at once or in the background, together on all ranks.
#include <chrono>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/train/trainer.h"

namespace sw {
namespace {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm tm{};
  gmtime_r(&now, &tm);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
  return text;
}

}  // namespace

CheckpointMeta Trainer::checkpoint_meta(double rate) const {
  CheckpointMeta meta = meta_;
  meta.step = step_;
  meta.tokens = tokens_;
  meta.created_utc = utc_now();
  meta.metrics_json = last_evaluation_;
  meta.train = train_;
  meta.train.lr = rate;
  meta.train.data = position(step_);
  meta.attributes[kSkipsAttribute] = consecutive_skips_;
  meta.attributes[kPassedOverAttribute] = passed_over_;
  meta.attributes[kMeansAttribute] = spikes_.state().steps;
  meta.attributes[kNormAttribute] = spikes_.state().norm_mean;
  if (best_step_ >= 0) {
    meta.attributes[kBestStepAttribute] = best_step_;
    meta.attributes[kBestScoreAttribute] = best_score_;
    meta.attributes[kBestNameAttribute] = best_name_;
  }
  return meta;
}

// Whether the model as it was just evaluated is the best so far: its checkpoint is written then. It
// is written again where the step has one already, which does not know of the evaluation.
void Trainer::judge_evaluation() {
  if (!config_.score || evaluations_.empty()) return;
  best_waits_ = step_ == committed_step_;
  const double score = config_.score(evaluations_);
  if (!std::isfinite(score) || (best_step_ >= 0 && score <= best_score_)) return;
  best_score_ = score;
  best_step_ = step_;
  best_name_ = config_.score_name;
  best_waits_ = true;
  log::info("step {} | best so far: {:.4f}", step_, score);
}

// After its commit, and where a process was killed in between.
void Trainer::link_best() {
  if (!writes() || best_step_ < 0 || best_waits_) return;
  const std::filesystem::path file = run_.checkpoint_file(best_step_);
  if (std::filesystem::exists(file)) run_.set_best(file);
}

// Metrics that cannot be written are no reason to go without a checkpoint.
void Trainer::sync_metrics() {
  if (!metrics_) return;
  try {
    metrics_->sync();
  } catch (const Error& error) {
    log::warn("{}; the checkpoint of step {} goes without", error.what(), step_);
  }
}

// Whether it has begun. A snapshot is then written by a thread of its own.
bool Trainer::begin_save(CheckpointSave::Source source) {
  announce(TrainPhase::save);
  if (hooks_.before_log) hooks_.before_log();
  since_save_began_.restart();
  background_step_ = step_;
  best_waits_ = false;
  try {
    sync_metrics();
    if (writes()) run_.make_checkpoints_folder();
    background_ = std::make_unique<CheckpointSave>(
        run_.checkpoint_file(step_), model_, optimizer_, checkpoint_meta(train_.lr),
        telemetry_.telemetry(), source, hooks_.file_calls);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::io && error.kind() != ErrorKind::cannot_create) throw;
    count_save_failure(step_, error.what());
    return false;
  }
  if (source == CheckpointSave::Source::snapshot) {
    background_->start_writing();
  } else {
    background_->write();
  }
  return true;
}

// Waits for the writing and commits; whether that went well.
bool Trainer::finish_save() {
  announce(TrainPhase::save);
  const std::unique_ptr<CheckpointSave> save = std::move(background_);
  if (hooks_.before_log) hooks_.before_log();
  try {
    const CommittedCheckpoint done = save->finish();
    agree_on(world_, [&] {
      if (background_step_ == best_step_) link_best();
      if (writes()) run_.committed(done.path, config_.keep_last);
    });
    save_failures_ = 0;
    committed_ = true;
    committed_step_ = background_step_;
    since_commit_.restart();
    save_seconds_ = since_save_began_.seconds();
    if (hooks_.watchdog != nullptr) hooks_.watchdog->took(TrainPhase::save, save_seconds_);
    log::info("checkpoint {} | digest {} | {} bytes | {:.2f} s", done.path.string(), done.digest,
              rough_count(static_cast<double>(done.bytes)), save_seconds_);
    if (hooks_.committed) hooks_.committed(done);
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::io && error.kind() != ErrorKind::cannot_create) throw;
    count_save_failure(background_step_, error.what());
    return false;
  }
}

void Trainer::count_save_failure(int64_t step, const std::string& reason) {
  ++save_failures_;
  log::warn("checkpoint of step {} failed ({} in a row): {}", step, save_failures_, reason);
  if (metrics_) {
    nlohmann::ordered_json event = event_json("save_failed", step);
    event["reason"] = reason;
    metrics_->append(event);
  }
  if (save_failures_ >= config_.max_save_failures) {
    fail(ErrorKind::io, "{} checkpoints in a row could not be written, the last because: {}",
         save_failures_, reason);
  }
  next_save_ = step_ + std::max<int64_t>(1, config_.save_every / 2);
}

// A periodic checkpoint, or one that was asked for. Saves do not overlap: the next one waits for
// the one before.
void Trainer::save_and_go_on() {
  if (background_ != nullptr) finish_save();
  if (step_ == committed_step_ && !best_waits_) return;
  plan_next_save();
  const bool begun = begin_save(config_.async_checkpoint ? CheckpointSave::Source::snapshot
                                                         : CheckpointSave::Source::tensors);
  const bool saved = begun && (config_.async_checkpoint || finish_save());
  // The next attempt will be of another step.
  if (!saved && best_step_ == step_) best_step_ = -1;
}

// The checkpoint that a run ends with.
void Trainer::save_or_fail() {
  if (background_ != nullptr) finish_save();
  while (step_ != committed_step_ || best_waits_) {
    if (begin_save(CheckpointSave::Source::tensors) && finish_save()) return;
    std::this_thread::sleep_for(std::chrono::duration<double>(config_.save_retry_seconds));
  }
}

}  // namespace sw
