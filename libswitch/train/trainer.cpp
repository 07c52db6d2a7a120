#include "libswitch/train/trainer.h"

#include <sys/resource.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/base/fault.h"
#include "libswitch/base/log.h"
#include "libswitch/train/checkpoint_state.h"

namespace sw {
namespace {

int64_t peak_resident_bytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

template <class T>
void read_attribute(const CheckpointMeta& meta, const char* name, T& value) {
  const auto found = meta.attributes.find(name);
  if (found == meta.attributes.end()) return;
  if (const T* stored = std::get_if<T>(&found->second)) value = *stored;
}

}  // namespace

Trainer::Trainer(const TrainerConfig& config, Model& model, Optimizer& optimizer,
                 const Objective& objective, const RunDirectory& run, CheckpointMeta meta,
                 TrainerHooks hooks)
    : config_(config),
      model_(model),
      optimizer_(optimizer),
      objective_(objective),
      run_(run),
      world_(model.mesh().world()),
      meta_(std::move(meta)),
      hooks_(std::move(hooks)) {
  if (!config_.untrained) config_.schedule.validate();
  config_.step.check_rows(objective.rows(), model.mesh().shape().data);
  SW_CHECK(config_.steps > 0 || config_.max_tokens > 0 || config_.untrained, usage,
           "training has no end: give a number of steps or tokens");
  SW_CHECK(config_.keep_last >= 2, usage,
           "keep-last is {}, expected at least 2: the newest checkpoint may be the one being "
           "written when something fails",
           config_.keep_last);
  train_.seed = config_.step.seed;
  step_ = config_.first_step;
}

void Trainer::resume(const CheckpointReader& reader) {
  const CheckpointMeta& meta = reader.meta();
  passed_over_ = 0;
  read_attribute(meta, kPassedOverAttribute, passed_over_);
  const DataPosition expected = position(meta.step);
  SW_CHECK(meta.train.data.manifest_sha256 == expected.manifest_sha256, usage,
           "{}: the run was started with other data (manifest {}, now {}): its order could not go "
           "on; give the same data or tasks, weights and lengths, or start another run with --run",
           reader.path().string(), meta.train.data.manifest_sha256, expected.manifest_sha256);
  SW_CHECK(meta.train.data == expected, usage,
           "{}: the run stands at sample {} of its data (seed {}), expected {} (seed {}) after {} "
           "steps; give the same --batch and --seed",
           reader.path().string(), meta.train.data.ordinal, meta.train.data.seed, expected.ordinal,
           expected.seed, meta.step);
  read_weights(reader, model_);
  read_optimizer(reader, optimizer_);
  step_ = meta.step;
  tokens_ = meta.tokens;
  train_ = meta.train;
  last_evaluation_ = meta.metrics_json;
  telemetry_ = TelemetryLog(reader.read_telemetry());
  SpikeState means{0, train_.loss_ema, train_.loss_variance, 0};
  read_attribute(meta, kSkipsAttribute, consecutive_skips_);
  read_attribute(meta, kMeansAttribute, means.steps);
  read_attribute(meta, kNormAttribute, means.norm_mean);
  best_step_ = -1;
  best_waits_ = false;
  read_attribute(meta, kBestStepAttribute, best_step_);
  read_attribute(meta, kBestScoreAttribute, best_score_);
  read_attribute(meta, kBestNameAttribute, best_name_);
  if (config_.score && best_step_ >= 0 && best_name_ != config_.score_name) {
    log::info("the best so far, step {}, was so by {}; by {} it is looked for anew", best_step_,
              best_name_, config_.score_name);
    best_step_ = -1;
  }
  spikes_ = SpikeWatch(means);
  // A run that starts from another's checkpoint has none of its own yet.
  std::error_code error;
  if (std::filesystem::equivalent(reader.path(), run_.checkpoint_file(step_), error)) {
    committed_step_ = step_;
  }
}

bool Trainer::done() const {
  return config_.untrained || (config_.steps > 0 && steps_done() >= config_.steps) ||
         (config_.max_tokens > 0 && tokens_ >= config_.max_tokens);
}

bool Trainer::time_is_up(double margin_seconds) const {
  return config_.max_seconds > 0 && since_start_.seconds() + margin_seconds > config_.max_seconds;
}

bool Trainer::stop_wanted() {
  if (requests_->take_reopen() && hooks_.reopen_log) hooks_.reopen_log();
  if (requests_->stop()) {
    stop_reason_ = requests_->reason();
  } else if (time_is_up(1.2 * save_seconds_ + 1.5 * step_seconds_)) {
    stop_reason_ = "--max-time";
  }
  return !stop_reason_.empty();
}

bool Trainer::any_rank(bool own) const {
  return world_.all_reduce_value(own ? 1 : 0, ReduceOp::max) != 0;
}

// True where it is true of any rank.
Trainer::Standing Trainer::stand_together(Standing own) {
  if (world_.size() == 1) return own;
  Tensor flags = Tensor::from(
      {3}, std::vector<int32_t>{own.waiting ? 1 : 0, own.stop ? 1 : 0, own.save ? 1 : 0});
  world_.all_reduce(flags, ReduceOp::max);
  const int32_t* any = flags.data<int32_t>();
  return {any[0] != 0, any[1] != 0, any[2] != 0};
}

void Trainer::interrupt_if(bool stop) {
  if (!stop) return;
  if (stop_reason_.empty()) stop_reason_ = "another rank";
  throw Interrupted{};
}

// Called equally often by all ranks.
void Trainer::poll() { interrupt_if(stand_together({false, stop_wanted(), false}).stop); }

// Goes on when every rank has its rows; hears of a stop as long as one has not.
void Trainer::take_batch(Batch& batch) {
  constexpr double kPollSeconds = 0.1;
  bool have = false, looked = false;
  for (;;) {
    have = have || prefetcher_->next_within(kPollSeconds, batch);
    if (have && world_.size() == 1) return;
    if (looked) announce(have ? TrainPhase::data_of_others : TrainPhase::data);
    looked = true;
    const Standing together = stand_together({!have, !have && stop_wanted(), false});
    interrupt_if(together.stop);
    if (!together.waiting) return;
  }
}

// Batches from the present step on.
void Trainer::start_reading() {
  prefetcher_ = std::make_unique<Prefetcher>(
      [this, part = model_.mesh().data_part(), ahead = passed_over_ - config_.first_step](
          int64_t step, Batch& batch) {
        fault_at(FaultSite::data, step + 1);
        objective_.fill(step + ahead, part, batch);
      },
      step_);
}

TrainOutcome Trainer::run(OutsideRequests& requests) {
  requests_ = &requests;
  if (writes())
    metrics_ = std::make_unique<MetricsFile>(run_.metrics_file(), step_, config_.first_step);
  if (writes() && config_.tensorboard) {
    tensorboard_ = std::make_unique<TensorBoardLog>(run_.tensorboard_folder(), step_);
  }
  start_reading();
  plan_next_save();
  link_best();
  set_fault_step(step_);
  if (hooks_.job != nullptr && world_.size() > 1) {
    hosts_ = world_.all_gather_bytes(hooks_.job->host());
  }

  // An evaluation that the last process did not get to.
  bool evaluate_now = any_rank(writes() && (steps_done() > 0 || config_.untrained) &&
                               (due(config_.eval_every) || done()) && !is_judged());
  for (;;) {
    try {
      if (evaluate_now) evaluate();
      evaluate_now = false;
      const bool at_end = done();
      const bool periodic = next_save_ > 0 && step_ >= next_save_ && step_ != committed_step_;
      const Standing together = stand_together({background_ != nullptr && !background_->written(),
                                                !at_end && stop_wanted(), requests_->take_save()});
      if (background_ != nullptr && !together.waiting) finish_save();
      if ((together.save || periodic || best_waits_) && !at_end) save_and_go_on();
      if (at_end) break;
      interrupt_if(together.stop);
      train_one_step();
      compare_weights();
      evaluate_now = due(config_.eval_every) || done();
    } catch (const RollBack& from) {
      roll_back(from);
    } catch (const Interrupted&) {
      save_or_fail();
      log::info("stopped on request of {} after step {}; the same command line goes on",
                stop_reason_, step_);
      return TrainOutcome::stopped;
    }
  }
  save_or_fail();
  return TrainOutcome::finished;
}

// A kill may come after an evaluation's line and before the checkpoint that knows of its score.
bool Trainer::is_judged() const {
  if (!metrics_->has_evaluation()) return false;
  if (!config_.score) return true;
  const auto last = nlohmann::json::parse(last_evaluation_, nullptr, false);
  return last.is_object() && last.value("step", int64_t{-1}) == step_;
}

bool Trainer::due(int64_t every) const { return every > 0 && steps_done() % every == 0; }

bool Trainer::line_due() const {
  constexpr double kLineSeconds = 10;
  if (steps_done() <= 10 || done()) return true;
  return config_.log_every > 0 ? due(config_.log_every) : since_line_.seconds() >= kLineSeconds;
}

void Trainer::plan_next_save() {
  const int64_t every = config_.save_every;
  next_save_ = every > 0 ? config_.first_step + (steps_done() / every + 1) * every : 0;
}

void Trainer::train_one_step() {
  const Timer timer;
  const double waited = prefetcher_->wait_seconds();
  const double before = seconds_in_collectives();
  set_fault_step(step_ + 1);
  announce(TrainPhase::step);
  take_batch(batch_);
  const double wait = prefetcher_->wait_seconds() - waited;
  announce(TrainPhase::step);
  const double rate = config_.schedule.at(steps_done());
  const StepResult result = training_step(
      model_, optimizer_, token_rows(batch_), step_, rate, config_.step,
      [this](Context& context, const Model& model, const ModelInput& input,
             const ForwardOptions& options) {
        return objective_.forward(context, model, input, options);
      },
      [this] { poll(); }, [this](StepResult& finite) { judge(finite); });
  const double in_collectives = seconds_in_collectives() - before;
  keep_slow(timer.seconds(), in_collectives);
  record(result, rate, timer.seconds(), wait, in_collectives);
}

void Trainer::append_metrics(const nlohmann::ordered_json& line) {
  metrics_->append(line);
  if (tensorboard_) tensorboard_->add(line);
}

void Trainer::record(const StepResult& result, double rate, double seconds, double wait,
                     double in_collectives) {
  ++step_;
  evaluations_.clear();
  tokens_ += result.tokens;
  train_.lr = rate;
  TrainMetrics metrics = train_metrics(step_, result);
  metrics.lr = rate;
  metrics.tokens = tokens_;
  metrics.step_seconds = seconds;
  metrics.tokens_per_second = static_cast<double>(result.tokens) / seconds;
  metrics.data_wait_share = wait / seconds;
  if (config_.peak_flops > 0) {
    metrics.share_of_peak = config_.flops_per_step / seconds / config_.peak_flops;
  }
  compare_times(seconds, in_collectives, metrics);
  telemetry_.add(step_, result, rate, metrics.tokens_per_second);
  if (metrics_) append_metrics(to_json(metrics));
  if (tensorboard_) tensorboard_->add_loads(step_, result.layers);
  step_seconds_ = step_seconds_ == 0 ? seconds : 0.9 * step_seconds_ + 0.1 * seconds;

  if (result.fault.empty()) {
    spikes_.add(result.loss, result.grad_norm);
    train_.loss_ema = spikes_.state().loss_mean;
    train_.loss_variance = spikes_.state().loss_variance;
    consecutive_skips_ = 0;
    interval_.loss += result.loss;
    ++interval_.finite;
  }
  ++interval_.steps;
  interval_.seconds += seconds;
  interval_.wait += wait;
  interval_.tokens += static_cast<double>(result.tokens);
  if (!result.fault.empty()) count_skip(result);
  if (line_due()) log_step(metrics);
  if (hooks_.stepped) hooks_.stepped(metrics, line_facts());
}

void Trainer::count_skip(const StepResult& result) {
  ++train_.skipped_steps;
  ++consecutive_skips_;
  tell_of_step("skipped", step_, result.fault);
  log::warn("step {}: {}; the step was skipped ({} in a row)", step_, result.fault,
            consecutive_skips_);
  if (consecutive_skips_ < config_.max_skips) return;
  if (config_.on_spike == OnSpike::rollback) {
    throw RollBack{step_ - 1, fmt::format("{} steps in a row were skipped, the last because {}",
                                          consecutive_skips_, result.fault)};
  }
  if (metrics_) metrics_->append(event_json("diverged", step_));
  fail(ErrorKind::diverged,
       "training diverged: {} steps in a row up to step {} were skipped, the last because {}; "
       "go on from an earlier checkpoint of {} with a lower --lr, or with --dtype fp32",
       consecutive_skips_, step_, result.fault, run_.path().string());
}

LineFacts Trainer::line_facts() const {
  LineFacts facts;
  facts.first_step = config_.first_step;
  facts.steps = config_.steps > 0 ? config_.first_step + config_.steps : 0;
  if (committed_) facts.checkpoint_age = since_commit_.seconds();
  if (config_.steps > 0)
    facts.eta = static_cast<double>(config_.steps - steps_done()) * step_seconds_;
  if (config_.max_tokens > 0 && tokens_ > 0) {
    const double left = static_cast<double>(std::max<int64_t>(config_.max_tokens - tokens_, 0));
    const double eta =
        left * static_cast<double>(steps_done()) / static_cast<double>(tokens_) * step_seconds_;
    facts.eta = facts.eta < 0 ? eta : std::min(facts.eta, eta);
  }
  facts.memory_bytes = peak_resident_bytes();
  facts.skipped = train_.skipped_steps;
  return facts;
}

void Trainer::log_step(const TrainMetrics& metrics) {
  TrainMetrics line = metrics;
  if (interval_.finite > 0) line.loss = interval_.loss / static_cast<double>(interval_.finite);
  line.tokens_per_second = interval_.tokens / interval_.seconds;
  line.data_wait_share = interval_.wait / interval_.seconds;
  if (config_.peak_flops > 0) {
    line.share_of_peak = config_.flops_per_step * static_cast<double>(interval_.steps) /
                         interval_.seconds / config_.peak_flops;
  }
  interval_ = {};
  since_line_.restart();
  if (hooks_.before_log) hooks_.before_log();
  log::info("{}", train_line(line, line_facts()));
}

void Trainer::note(const nlohmann::ordered_json& event) {
  if (metrics_) append_metrics(event);
}

std::vector<Evaluation> Trainer::evaluate(const Model& other) {
  announce(TrainPhase::evaluation);
  return objective_.evaluate(other, {});
}

void Trainer::evaluate() {
  announce(TrainPhase::evaluation);
  evaluations_ = objective_.evaluate(model_, [this] { poll(); });
  if (evaluations_.empty()) return;
  nlohmann::ordered_json last = {{"step", step_}, {"results", nlohmann::ordered_json::array()}};
  if (hooks_.before_log) hooks_.before_log();
  for (const Evaluation& result : evaluations_) {
    nlohmann::ordered_json json = to_json(result, step_);
    if (metrics_) append_metrics(json);
    log::info("{}", evaluation_line(result, step_));
    for (const char* key : {"kind", "step", "time"}) json.erase(key);
    last["results"].push_back(std::move(json));
  }
  last_evaluation_ = last.dump();
  judge_evaluation();
}

}  // namespace sw
