#include "libswitch/train/finetune_run.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/inherit.h"

namespace sw {
namespace {

// Attributes of a tuned model's checkpoints: the step that tuning began at, and of which bits.
constexpr const char* kFirstStep = "first_step";
constexpr const char* kFromDigest = "from_digest";

class FinetuningJob final : public TrainingJob {
 public:
  FinetuningJob(FinetuneOptions& options, OptionRegistry& registry)
      : options_(options), registry_(registry) {}

  LearningOptions& learning() override { return options_.learning; }
  RunOptions& run() override { return options_.run; }
  std::shared_ptr<void> declare(OptionRegistry& registry) const override {
    auto options = std::make_shared<FinetuneOptions>();
    declare_finetune_options(registry, *options);
    return options;
  }
  PreparedRun prepare(int64_t ranks, const CheckpointReader* before) override;
  std::string tokenizer() override { return tokenizer_->model_bytes(); }
  std::unique_ptr<Objective> make_objective(const Mesh&) override {
    return std::make_unique<TaskObjective>(std::move(tasks_.dataset), options_.learning.seed,
                                           options_.learning.batch, std::move(tasks_.evaluations));
  }
  void configure(TrainerConfig& config) const override {
    config.first_step = first_step_;
    if (options_.best.empty()) return;
    config.score_name =
        fmt::format("{} on {}", options_.best, fmt::join(options_.task.eval_tasks, ", "));
    config.score = [metric = options_.best](const std::vector<Evaluation>& results) {
      return score_of(results, metric);
    };
  }
  void initialize(Model& model, Optimizer& optimizer) override;

 private:
  void begin();
  void go_on(const CheckpointReader& before);

  FinetuneOptions& options_;
  OptionRegistry& registry_;
  std::optional<CheckpointReader> from_;  // at the run's start only
  std::string from_digest_;
  int64_t first_step_ = 0;
  std::optional<Tokenizer> tokenizer_;
  TrainingTasks tasks_;
};

// Settles what the checkpoint that the run begins with decides.
void FinetuningJob::begin() {
  SW_CHECK(!options_.from.empty(), usage,
           "--from is missing; give the checkpoint or run folder to begin with");
  from_.emplace(open_checkpoint(options_.from.string()));
  const std::string file = from_->path().string();
  inherit_model_options(registry_, *from_, Inherit::same_model, [](const std::string& key) {
    return key == "dropout" || key == "expert_dropout";
  });
  const std::string& before = from_->meta().optimizer;
  Option& optimizer = *registry_.find("optimizer");
  const bool state =
      std::any_of(from_->entries().begin(), from_->entries().end(),
                  [](const TensorEntry& e) { return e.path.starts_with("/optim/"); });
  if (!state && !options_.fresh_optimizer) {
    log::warn("{}: holds no optimizer state; it begins anew, as with --fresh-optimizer", file);
    options_.fresh_optimizer = true;
  }
  if (!options_.fresh_optimizer) {
    const bool given = optimizer.origin().source != Source::fallback;
    SW_CHECK(!given || options_.learning.optimizer == before, usage,
             "--optimizer is {}, but {} has the state of {}; give that, or --fresh-optimizer",
             options_.learning.optimizer, file, before);
    optimizer.assign({before}, Source::preset, file);
    first_step_ = from_->meta().step;
  }
  from_digest_ = from_->digest();
  tokenizer_.emplace(load_tokenizer(*from_, options_.vocab.string()));
}

void FinetuningJob::go_on(const CheckpointReader& before) {
  const auto& attributes = before.meta().attributes;
  const auto step = attributes.find(kFirstStep);
  const auto digest = attributes.find(kFromDigest);
  const auto* first = step == attributes.end() ? nullptr : std::get_if<int64_t>(&step->second);
  SW_CHECK(first != nullptr && digest != attributes.end() &&
               std::holds_alternative<std::string>(digest->second),
           usage, "{}: is no checkpoint of sw-finetune; give it as --from, and another --run",
           before.path().string());
  first_step_ = *first;
  from_digest_ = std::get<std::string>(digest->second);
  tokenizer_.emplace(load_tokenizer(before, options_.vocab.string()));
}

PreparedRun FinetuningJob::prepare(int64_t ranks, const CheckpointReader* before) {
  if (before != nullptr) {
    go_on(*before);
  } else {
    begin();
  }
  PreparedRun out;
  out.model = options_.model.resolve();
  out.machine = settle_machine(options_.learning, options_.run, ranks, out.model.experts);
  tasks_ = open_training_tasks(options_.task, *tokenizer_, options_.learning.seed);
  if (!options_.best.empty()) check_metric(tasks_.evaluations, options_.best);
  out.preset = options_.model.preset;
  if (from_) {
    out.beginning = fmt::format("from {}, step {}", from_->path().string(), first_step_);
  }
  describe_tasks(tasks_, *tokenizer_, out);
  out.attributes[kFirstStep] = first_step_;
  out.attributes[kFromDigest] = from_digest_;
  return out;
}

void FinetuningJob::initialize(Model& model, Optimizer& optimizer) {
  read_weights(*from_, model);
  if (!options_.fresh_optimizer) read_optimizer(*from_, optimizer);
  log::info("begins with {} | digest {} | {}", from_->path().string(), from_digest_,
            options_.fresh_optimizer
                ? std::string("a fresh optimizer, counting from step 0")
                : fmt::format("its optimizer's state, counting on from step {}", first_step_));
  from_.reset();
}

}  // namespace

FinetuneOptions::FinetuneOptions() {
  model.config.dropout = 0.1;
  model.expert_dropout = 0.4;
  learning.schedule = "constant";
  learning.lr = 1e-3;
  run.eval_every = 200;
}

void declare_finetune_options(OptionRegistry& r, FinetuneOptions& o) {
  r.group("finetune", "Fine-tuning");
  r.add("from", &o.from)
      .value_name("CHECKPOINT")
      .required()
      .help("model to tune: a .h5 file or a run folder");
  r.add("fresh-optimizer", &o.fresh_optimizer)
      .help("begin without the checkpoint's optimizer state, at step 0")
      .details(
          "Else both go on, so that the optimizer's averages stay as long as they were. --steps "
          "counts the steps of tuning in any case, and the schedule begins with them.");
  r.add("best", &o.best)
      .value_name("METRIC")
      .default_text("none is kept")
      .help("keep the checkpoint with the best METRIC of --eval-task as DIR/best")
      .details(
          "score is the mean over tasks of the mean of their metrics; else a metric's name, such "
          "as accuracy, em, f1, rouge2, or neg_log_perplexity. --keep-last never removes it.");
  declare_task_options(r, o.task, true, true);
  r.add("vocab", &o.vocab)
      .value_name("V.model")
      .advanced()
      .default_text("the checkpoint's")
      .help("SentencePiece model, for a checkpoint that holds none");
  declare_model_options(r, o.model);
  declare_learning_options(r, o.learning);
  declare_run_options(r, o.run);
  r.find("expert-dropout")->default_text("0.4");
  r.find("schedule")->default_text("constant");
  r.find("lr")->default_text("0.001");
  r.find("steps")->help("steps of tuning, beyond those of the checkpoint");
  r.find("optimizer")->default_text("the checkpoint's");
  // What the checkpoint decides is not worth a line of the short help.
  for (const char* name :
       {"preset", "conventions", "experts", "expert-every", "router", "device", "capacity-factor",
        "eval-capacity-factor", "aux-loss", "z-loss", "jitter", "init-scale"}) {
    r.find(name)->advanced();
  }
}

TrainOutcome finetune(FinetuneOptions& options, RunContext& context) {
  FinetuningJob job(options, context.registry);
  return run_training(job, context);
}

TrainingPlan plan_finetuning(FinetuneOptions& options, RunContext& context) {
  FinetuningJob job(options, context.registry);
  return plan_training(job, context);
}

}  // namespace sw
