#include "libswitch/train/distill_run.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/io/checkpoint_folder.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/inherit.h"
#include "libswitch/train/student_weights.h"
#include "libswitch/train/training_shards.h"

namespace sw {
namespace {

// Attributes of a student's checkpoints.
constexpr const char* kTeacherDigest = "teacher_digest";
constexpr const char* kTeacherParameters = "teacher_params_total";

class DistillationJob final : public TrainingJob {
 public:
  DistillationJob(DistillOptions& options, OptionRegistry& registry)
      : options_(options), registry_(registry) {}

  LearningOptions& learning() override { return options_.learning; }
  RunOptions& run() override { return options_.run; }
  std::shared_ptr<void> declare(OptionRegistry& registry) const override {
    auto options = std::make_shared<DistillOptions>();
    declare_distill_options(registry, *options);
    return options;
  }
  void take_in(const std::filesystem::path& folder) override { spool_stdin(options_.data, folder); }
  void check_plannable() const override { check_stdin_spooled(options_.data, options_.run.run); }
  PreparedRun prepare(int64_t ranks, const CheckpointReader* before) override;
  std::string tokenizer() override;
  std::unique_ptr<Objective> make_objective(const Mesh& mesh) override;
  void configure(TrainerConfig& config) const override {
    config.untrained = options_.learning.steps == 0;
  }
  void initialize(Model& model, Optimizer& optimizer) override;
  void finished(Trainer& trainer, const Model& model) override;

 private:
  void choose_sparsity();
  void open_teacher();
  void inherit();
  void check_student(const ModelConfig& student) const;
  void open_shards(PreparedRun& out);
  void open_tasks(PreparedRun& out);
  void check_digest(const CheckpointReader& before) const;
  void open_logits(const PreparedRun& prepared);
  std::unique_ptr<Model> load_teacher(const Mesh& mesh, DType compute) const;
  KeptExperts kept_experts(const Model& student) const;
  std::vector<RouterStatistics> measure_usage(const Model& teacher, const Objective& data) const;

  DistillOptions& options_;
  OptionRegistry& registry_;
  std::optional<CheckpointReader> teacher_, student_, baseline_;
  ModelConfig teacher_config_;
  TrainingShards shards_;
  std::optional<Tokenizer> tokenizer_;  // with tasks
  TrainingTasks tasks_;
  std::unique_ptr<TeacherLogitsFile> logits_;
  const DistillationObjective* objective_ = nullptr;  // the trainer's
};

// A student is dense unless experts are asked for: a preset's count is the teacher's.
void DistillationJob::choose_sparsity() {
  SW_CHECK(options_.student.empty() || options_.model.preset.empty(), usage,
           "--student and --preset are both given; a student is a checkpoint or made anew");
  // The configuration of a run with --student holds --init at its default.
  SW_CHECK(options_.student.empty() ||
               (options_.init == "teacher" && registry_.find("init")->origin().source < Source::flag),
           usage, "--student and --init are both given; --init is for a student that is made anew");
  Option& experts = *registry_.find("experts");
  const bool given = experts.origin().source > Source::preset;
  if (options_.keep_experts > 0) {
    SW_CHECK(!given || options_.model.config.experts == options_.keep_experts, usage,
             "--experts is {}, but --keep-experts {}; leave --experts out",
             options_.model.config.experts, options_.keep_experts);
    SW_CHECK(options_.init == "teacher", usage,
             "--keep-experts takes experts of the teacher; it does not go with --init {}",
             options_.init);
    experts.assign({options_.keep_experts}, Source::preset, "--keep-experts");
  } else if (!given && options_.student.empty()) {
    experts.assign({int64_t{0}}, Source::preset, "the dense student");
  }
}

void DistillationJob::open_teacher() {
  SW_CHECK(!options_.teacher.empty(), usage,
           "--teacher is missing; give a checkpoint or a run folder");
  teacher_.emplace(open_checkpoint(options_.teacher.string()));
  teacher_config_ = model_config(*teacher_);
  if (!options_.baseline.empty()) {
    baseline_.emplace(open_checkpoint(options_.baseline.string()));
    SW_CHECK(vocabulary_of(*baseline_) == vocabulary_of(*teacher_), corrupt,
             "--baseline {}: has another vocabulary than the teacher; its figures do not compare",
             baseline_->path().string());
  }
  if (teacher_config_.vocab_size == 0) {
    teacher_config_.vocab_size = teacher_->entry("/model/shared/embedding").shape[0];
  }
}

void DistillationJob::inherit() {
  // It would say that --preset was given.
  const auto name_of_preset = [](const std::string& key) { return key == "preset"; };
  if (!options_.student.empty()) {
    student_.emplace(open_checkpoint(options_.student.string()));
    inherit_model_options(registry_, *student_, Inherit::same_model, name_of_preset);
    return;
  }
  const bool named = !options_.model.preset.empty();
  inherit_model_options(registry_, *teacher_, named ? Inherit::vocabulary : Inherit::all,
                        name_of_preset);
}

void DistillationJob::check_student(const ModelConfig& student) const {
  const std::string file = teacher_->path().string();
  SW_CHECK(student.vocab_size == teacher_config_.vocab_size, corrupt,
           "{}: the teacher's vocabulary has {} rows, the student's {}; they have to be the same",
           file, teacher_config_.vocab_size, student.vocab_size);
  const Conventions &a = teacher_config_.conventions, &b = student.conventions;
  SW_CHECK(a.mask_target_padding == b.mask_target_padding && a.loss_mean == b.loss_mean, usage,
           "--conventions: the student follows {}, {} follows {}, which masks padding or counts "
           "targets otherwise; give --conventions {}",
           b.name, file, a.name, a.name);
}

void DistillationJob::check_digest(const CheckpointReader& before) const {
  const auto& attributes = before.meta().attributes;
  const auto it = attributes.find(kTeacherDigest);
  const auto* digest = it == attributes.end() ? nullptr : std::get_if<std::string>(&it->second);
  SW_CHECK(
      digest != nullptr && *digest == teacher_->digest(), usage,
      "--teacher {}: {} was distilled from another teacher (digest {}, now {}); give that one, "
      "or start another run with --run",
      teacher_->path().string(), before.path().string(), digest != nullptr ? *digest : "none",
      teacher_->digest());
}

void DistillationJob::open_shards(PreparedRun& out) {
  SW_CHECK(!options_.data.data.empty(), usage,
           "--data is missing; give token shards of the teacher's vocabulary, or --task");
  SW_CHECK(options_.task.eval_tasks.empty(), usage, "--eval-task goes with --task");
  int64_t& input_length = options_.data.input_length;
  if (input_length == 0) input_length = DataOptions().input_length;
  shards_ = open_training_shards(options_.data, options_.learning.seed, options_.run.run,
                                 vocabulary_of(*teacher_), "the teacher");
  out.input_length = shards_.dataset->input_length();
  out.target_length = shards_.dataset->target_length();
  out.train_examples = shards_.windows();
  out.train_tokens = shards_.dataset->tokens();
  out.attributes[kVocabularyAttribute] = shards_.vocabulary;
}

void DistillationJob::open_tasks(PreparedRun& out) {
  SW_CHECK(options_.data.data.empty() && options_.data.eval_data.empty(), usage,
           "--data and --task are both given; a student learns from one of them");
  tokenizer_.emplace(task_tokenizer(*teacher_, options_.data.vocab.string()));
  options_.task.input_length = options_.data.input_length;
  options_.task.target_length = options_.data.target_length;
  tasks_ = open_training_tasks(options_.task, *tokenizer_, options_.learning.seed);
  out.input_length = tasks_.dataset->input_length();
  out.target_length = tasks_.dataset->target_length();
  out.train_examples = tasks_.rows();
  out.train_tokens = tasks_.tokens();
  const auto& sha256 = tokenizer_->sha256();
  out.attributes[kVocabularyAttribute] = to_hex(sha256.data(), sha256.size());
}

PreparedRun DistillationJob::prepare(int64_t ranks, const CheckpointReader* before) {
  SW_CHECK(options_.student.empty() || options_.keep_experts == 0, usage,
           "--keep-experts chooses experts of the teacher, but --student has its own");
  if (before == nullptr) choose_sparsity();
  open_teacher();
  if (before != nullptr) {
    check_digest(*before);
  } else {
    inherit();
  }
  SW_CHECK(options_.keep_experts == 0 || teacher_config_.experts > 0, usage,
           "--keep-experts: {} has no experts", teacher_->path().string());
  PreparedRun out;
  const int64_t experts =
      std::gcd(options_.model.resolve().experts, teacher_config_.experts);  // gcd(0, n) is n
  out.machine = settle_machine(options_.learning, options_.run, ranks, experts);
  out.model = options_.model.resolve();
  check_student(out.model);
  out.preset = options_.model.preset;
  if (before != nullptr) {
    out.preset = before->meta().preset;
  } else if (student_) {
    out.preset = student_->meta().preset;
  }
  if (student_) {
    out.beginning = "from " + student_->path().string();
  } else if (options_.init == "teacher") {
    out.beginning = "from weights of " + teacher_->path().string();
  }
  if (options_.task.tasks.empty()) {
    open_shards(out);
  } else {
    open_tasks(out);
  }
  out.attributes[kTeacherDigest] = teacher_->digest();
  out.attributes[kTeacherParameters] = count_parameters(teacher_config_).total;
  if (options_.teacher_logits.empty()) out.frozen.push_back(teacher_config_);
  open_logits(out);
  return out;
}

std::string DistillationJob::tokenizer() {
  if (tokenizer_) return tokenizer_->model_bytes();
  const std::string& own = teacher_->meta().tokenizer;
  if (!own.empty() && options_.data.vocab.empty()) return own;
  return shard_tokenizer(shards_.first_shard, options_.data.vocab);
}

std::unique_ptr<Model> DistillationJob::load_teacher(const Mesh& mesh, DType compute) const {
  auto teacher = std::make_unique<Model>(frozen(teacher_config_), compute, Device{}, mesh);
  read_weights(*teacher_, *teacher);
  return teacher;
}

// The file of logits, read or written.
void DistillationJob::open_logits(const PreparedRun& prepared) {
  const bool writes = !options_.write_teacher_logits.empty();
  if (options_.teacher_logits.empty() && !writes) return;
  SW_CHECK(options_.teacher_logits.empty() || !writes, usage,
           "--teacher-logits and --write-teacher-logits are both given; they are read or written");
  SW_CHECK(options_.run.on_spike != OnSpike::rollback, usage,
           "--on-spike rollback leaves data out, which a file of teacher logits does not know of; "
           "give another");
  const TeacherLogitsShape shape{prepared.target_length, options_.teacher_top_k,
                                 teacher_config_.vocab_size, teacher_->digest()};
  if (writes) {
    SW_CHECK(prepared.machine.mesh.model == 1, usage,
             "--write-teacher-logits: mesh {} cuts the vocabulary; give model=1",
             prepared.machine.mesh.str());
    logits_ = std::make_unique<TeacherLogitsFile>(options_.write_teacher_logits, shape);
    return;
  }
  logits_ = std::make_unique<TeacherLogitsFile>(options_.teacher_logits);
  const TeacherLogitsShape& there = logits_->shape();
  const std::string file = options_.teacher_logits.string();
  SW_CHECK(there.teacher_digest == shape.teacher_digest, usage,
           "{}: was made by another teacher (digest {}, --teacher has {})", file,
           there.teacher_digest, shape.teacher_digest);
  SW_CHECK(there.target_length == shape.target_length && there.vocab_size == shape.vocab_size,
           usage, "{}: was made for {} target positions, this run has {}; give the same lengths",
           file, there.target_length, shape.target_length);
}

std::unique_ptr<Objective> DistillationJob::make_objective(const Mesh& mesh) {
  const LearningOptions& learning = options_.learning;
  std::unique_ptr<Objective> data;
  if (tokenizer_) {
    data = std::make_unique<TaskObjective>(std::move(tasks_.dataset), learning.seed, learning.batch,
                                           std::move(tasks_.evaluations));
  } else {
    data = std::make_unique<PretrainingObjective>(std::move(shards_.dataset), learning.seed,
                                                  learning.batch, std::move(shards_.eval_sets));
  }
  std::unique_ptr<Model> teacher;
  if (options_.teacher_logits.empty()) teacher = load_teacher(mesh, compute_dtype(learning.dtype));
  const ParameterCount count = count_parameters(teacher_config_);
  log::info("teacher {} | {} parameters, {} active | digest {}", teacher_->path().string(),
            rough_count(static_cast<double>(count.total)),
            rough_count(static_cast<double>(count.active)), teacher_->digest());
  auto objective = std::make_unique<DistillationObjective>(std::move(data), std::move(teacher),
                                                           std::move(logits_), options_.mix);
  objective_ = objective.get();
  return objective;
}

// Choices of the teacher's routers on the first rows of the training data, all ranks together.
std::vector<RouterStatistics> DistillationJob::measure_usage(const Model& teacher,
                                                             const Objective& data) const {
  std::vector<RouterStatistics> layers;
  const int64_t steps = std::max<int64_t>(1, options_.usage_rows / data.rows());
  const MeshPart part = teacher.mesh().data_part();
  // Tokens compete for the capacity within the shards of the training, whatever the ranks.
  const int64_t shards = part.count(options_.learning.canonical_ranks);
  Batch batch;
  for (int64_t step = 0; step < steps; ++step) {
    data.fill(step, part, batch);
    const StepResult result = evaluate_batch(teacher, token_rows(batch), shards);
    layers.resize(result.layers.size());
    for (size_t i = 0; i < layers.size(); ++i) layers[i].merge(result.layers[i]);
  }
  for (RouterStatistics& layer : layers) {
    for (int64_t& chosen : layer.chosen) {
      chosen = teacher.mesh().data().all_reduce_value(chosen, ReduceOp::sum);
    }
  }
  return layers;
}

KeptExperts DistillationJob::kept_experts(const Model& student) const {
  if (options_.keep_experts == 0) return {};
  KeptExperts kept;
  if (options_.expert_usage == "telemetry") {
    kept = most_used_experts(*teacher_, options_.keep_experts);
  } else {
    std::unique_ptr<Model> loaded;
    const Model* teacher = objective_->teacher();
    if (teacher == nullptr) {
      loaded = load_teacher(student.mesh(), student.compute());
      teacher = loaded.get();
    }
    kept = most_used_experts(measure_usage(*teacher, *objective_), options_.keep_experts);
  }
  for (const auto& [layer, experts] : kept) {
    log::info("{}: keeps experts {}", layer, fmt::join(experts, " "));
  }
  return kept;
}

void DistillationJob::initialize(Model& model, Optimizer&) {
  if (student_) {
    read_weights(*student_, model);
  } else if (options_.init == "fresh") {
    model.initialize(options_.learning.seed);
  } else {
    const CopiedWeights copied =
        initialize_from_teacher(model, *teacher_, kept_experts(model), options_.learning.seed);
    log::info("the student begins with {} tensors of the teacher and {} of its own", copied.tensors,
              copied.fresh);
  }
}

// What an evaluation's figures are called, the negative log perplexity first.
std::vector<std::pair<std::string, double>> figures_of(const Evaluation& evaluation) {
  std::vector<std::pair<std::string, double>> figures = {
      {"neg_log_perplexity", evaluation.neg_log_perplexity}};
  figures.insert(figures.end(), evaluation.metrics.begin(), evaluation.metrics.end());
  return figures;
}

// One line of the log for each figure; the same in `event`.
void compare(const Evaluation& student, const Evaluation& teacher, const Evaluation* baseline,
             double compression, nlohmann::ordered_json& event) {
  const auto students = figures_of(student), teachers = figures_of(teacher);
  for (size_t i = 0; i < students.size(); ++i) {
    const auto& [name, value] = students[i];
    nlohmann::ordered_json figures = {{"teacher", teachers[i].second}, {"student", value}};
    std::string text = fmt::format("{} | {} | teacher {:.4f} | student {:.4f}", student.data, name,
                                   teachers[i].second, value);
    if (baseline != nullptr) {
      const double base = figures_of(*baseline)[i].second;
      const double share = share_kept(base, value, teachers[i].second);
      figures["baseline"] = base;
      figures["share_kept"] = share;  // null when it is not a number
      text += fmt::format(" | baseline {:.4f}", base);
      text += std::isnan(share) ? std::string(" | the teacher gains nothing over it")
                                : fmt::format(" | {:.1f} % of the gain kept", 100 * share);
    }
    event[name] = std::move(figures);
    log::info("{} | compression {:.1f} %", text, 100 * compression);
  }
}

void DistillationJob::finished(Trainer& trainer, const Model& model) {
  const std::vector<Evaluation> student =
      trainer.evaluations().empty() ? trainer.evaluate(model) : trainer.evaluations();
  const double size = static_cast<double>(count_parameters(model.config()).total);
  const double compression =
      1 - size / static_cast<double>(count_parameters(teacher_config_).total);
  if (student.empty()) {
    log::info("compression {:.1f} % | give --eval-{} to compare student and teacher",
              100 * compression, tokenizer_ ? "task" : "data");
    return;
  }
  const std::vector<Evaluation> teacher =
      objective_->teacher() != nullptr
          ? trainer.evaluate(*objective_->teacher())
          : trainer.evaluate(*load_teacher(model.mesh(), model.compute()));
  std::vector<Evaluation> baseline;
  if (baseline_) {
    baseline = trainer.evaluate(*load_model(*baseline_, model.compute(), model.mesh()));
  }
  for (size_t i = 0; i < student.size(); ++i) {
    nlohmann::ordered_json event = event_json("distilled", trainer.step());
    event["data"] = student[i].data;
    event["compression"] = compression;
    compare(student[i], teacher[i], baseline.empty() ? nullptr : &baseline[i], compression, event);
    trainer.note(event);
  }
}

}  // namespace

double share_kept(double baseline, double student, double teacher) {
  const double gain = teacher - baseline;
  return gain > 0 ? (student - baseline) / gain : std::nan("");
}

void declare_distill_options(OptionRegistry& r, DistillOptions& o) {
  r.group("distill", "Distillation");
  r.add("teacher", &o.teacher)
      .value_name("CHECKPOINT")
      .required()
      .help("whom the student learns from: a .h5 file or a run folder");
  r.add("student", &o.student)
      .value_name("CHECKPOINT")
      .default_text("made anew: --preset, or the teacher's dense twin")
      .help("a student that goes on learning");
  r.add("keep-experts", &o.keep_experts)
      .at_least(0)
      .default_text("a dense student")
      .help("make a sparse student of the N most used experts of each layer")
      .details(
          "Their weights and the routers' columns are copied too. With --steps 0 that is all: the "
          "teacher pruned to what its data use.");
  r.add("soft-weight", &o.mix.soft_weight)
      .range(0, 1)
      .help("weight of the teacher's distribution; the labels have the rest");
  r.add("temperature", &o.mix.temperature).above(0).help("that both distributions are softened by");
  r.add_choice("init", &o.init, {"teacher", "fresh"})
      .help("where the student's weights begin; teacher: all that is no expert")
      .details(
          "Embeddings, attention, norms, relative biases and dense feed-forward layers are copied "
          "by name; feed-forward layers in place of experts are drawn anew.");
  r.add("baseline", &o.baseline)
      .value_name("CHECKPOINT")
      .help("a model without a teacher, for the share of the teacher's gain");
  r.add_choice("expert-usage", &o.expert_usage, {"data", "telemetry"})
      .advanced()
      .help("what --keep-experts goes by: the given data, or the teacher's own training");
  r.add("usage-rows", &o.usage_rows)
      .at_least(1)
      .unit("rows")
      .advanced()
      .help("of the given data that the usage is measured on");
  r.add("write-teacher-logits", &o.write_teacher_logits)
      .value_name("FILE")
      .advanced()
      .help("keep what the teacher says of the training rows, for other students")
      .details(
          "The largest logits of each target, 8 bytes each. A student of the same data, --batch, "
          "--seed and lengths reads them with --teacher-logits and needs no teacher while it "
          "learns.");
  r.add("teacher-top-k", &o.teacher_top_k)
      .range(1, 1 << 16)
      .advanced()
      .help("logits that --write-teacher-logits keeps of each target");
  r.add("teacher-logits", &o.teacher_logits)
      .value_name("FILE")
      .advanced()
      .help("what the teacher said, from a file; the rest has no probability");
  declare_model_options(r, o.model);
  declare_data_options(r, o.data, {false, "mixture-temperature", 0});
  declare_task_options(r, o.task, false, false);
  declare_learning_options(r, o.learning, 0);
  declare_run_options(r, o.run);
  r.find("experts")->default_text("0, --keep-experts, or the student's");
  for (const char* name :
       {"conventions", "expert-every", "router", "device", "seed", "capacity-factor"}) {
    r.find(name)->advanced();
  }
}

TrainOutcome distill(DistillOptions& options, RunContext& context) {
  DistillationJob job(options, context.registry);
  return run_training(job, context);
}

TrainingPlan plan_distillation(DistillOptions& options, RunContext& context) {
  DistillationJob job(options, context.registry);
  return plan_training(job, context);
}

}  // namespace sw
