#include "libswitch/train/distill_run.h"

#include <fmt/ranges.h>

#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/io/checkpoint_folder.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/distill_comparison.h"
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
  void yield_to_run(const CheckpointReader& before) override;
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
  void check_logits(const PreparedRun& prepared);
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
  std::unique_ptr<TeacherLogitsFile> logits_;         // to be read
  TeacherLogitsShape logits_shape_;                   // to be written
  const DistillationObjective* objective_ = nullptr;  // the trainer's
};

// A student is dense unless experts are asked for: a preset's count is the teacher's.
void DistillationJob::choose_sparsity() {
  SW_CHECK(options_.student.empty() || options_.model.preset.empty(), usage,
           "--student and --preset are both given; a student is a checkpoint or made anew");
  // The configuration of a run with --student holds --init at its default.
  SW_CHECK(options_.student.empty() || (options_.init == "teacher" &&
                                        registry_.find("init")->origin().source < Source::flag),
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

// The student of the run has as many experts as it had at the start, whatever its preset has.
void DistillationJob::yield_to_run(const CheckpointReader& before) {
  Option& experts = *registry_.find("experts");
  if (experts.origin().source != Source::preset) return;
  experts.assign({model_config(before).experts}, Source::preset, before.path().string());
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
    const std::string mine = vocabulary_of(*student_), theirs = vocabulary_of(*teacher_);
    SW_CHECK(mine == theirs || mine.empty() || theirs.empty(), corrupt,
             "--student {}: has another vocabulary ({}...) than the teacher ({}...), so that ids "
             "mean other pieces; give a student of the teacher's vocabulary",
             student_->path().string(), mine.substr(0, 16), theirs.substr(0, 16));
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
  SW_CHECK(options_.task.eval_tasks.empty(), usage,
           "--eval-task goes with --task; give --eval-data with --data");
  int64_t& input_length = options_.data.input_length;
  if (input_length == 0) input_length = DataOptions().input_length;
  shards_ = open_training_shards(options_.data, options_.learning.seed, options_.run.run,
                                 vocabulary_of(*teacher_), "the teacher");
  const int64_t ids = shards_.dataset->vocabulary().vocab_size;
  SW_CHECK(ids <= teacher_config_.vocab_size, corrupt,
           "{}: has {} ids, but the embedding table of {} {} rows; give data of the teacher's "
           "vocabulary",
           shards_.first_shard.string(), ids, teacher_->path().string(),
           teacher_config_.vocab_size);
  out.input_length = shards_.dataset->input_length();
  out.target_length = shards_.dataset->target_length();
  out.train_examples = shards_.windows();
  out.train_tokens = shards_.dataset->tokens();
  out.attributes[kVocabularyAttribute] = shards_.vocabulary;
}

void DistillationJob::open_tasks(PreparedRun& out) {
  SW_CHECK(options_.data.data.empty(), usage,
           "--data and --task are both given; a student learns from one of them");
  SW_CHECK(options_.data.eval_data.empty(), usage,
           "--eval-data goes with --data; give --eval-task with --task");
  tokenizer_.emplace(load_tokenizer(*teacher_, options_.data.vocab.string()));
  options_.task.input_length = options_.data.input_length;
  options_.task.target_length = options_.data.target_length;
  tasks_ = open_training_tasks(options_.task, *tokenizer_, options_.learning.seed);
  describe_tasks(tasks_, *tokenizer_, out);
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
  SW_CHECK(options_.keep_experts <= teacher_config_.experts, usage,
           "--keep-experts: {}, but {} has {} experts in a layer", options_.keep_experts,
           teacher_->path().string(), teacher_config_.experts);
  PreparedRun out;
  const int64_t experts =
      std::gcd(options_.model.resolve().experts, teacher_config_.experts);  // gcd(0, n) is n
  out.machine = settle_machine(options_.learning, options_.run, ranks, experts);
  out.model = options_.model.resolve();
  check_student(out.model);
  if (before == nullptr && !student_ && options_.init == "teacher") {
    out.model.validate();
    check_inheritable(out.model, *teacher_, options_.keep_experts);
  }
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
  check_logits(out);
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

// The file of logits: opened to be read, or looked at before it is written.
void DistillationJob::check_logits(const PreparedRun& prepared) {
  const bool writes = !options_.write_teacher_logits.empty();
  if (options_.teacher_logits.empty() && !writes) return;
  SW_CHECK(options_.teacher_logits.empty() || !writes, usage,
           "--teacher-logits and --write-teacher-logits are both given; they are read or written");
  SW_CHECK(options_.run.on_spike != OnSpike::rollback, usage,
           "--on-spike rollback leaves data out, which a file of teacher logits does not know of; "
           "give another");
  logits_shape_ = {prepared.target_length, options_.teacher_top_k, teacher_config_.vocab_size,
                   teacher_->digest()};
  const TeacherLogitsShape& shape = logits_shape_;
  if (writes) {
    SW_CHECK(prepared.machine.mesh.model == 1, usage,
             "--write-teacher-logits: mesh {} cuts the vocabulary; give model=1",
             prepared.machine.mesh.str());
    SW_CHECK(shape.largest <= shape.vocab_size, usage,
             "--teacher-top-k is {}, but the vocabulary of {} has {} ids; give at most that",
             shape.largest, teacher_->path().string(), shape.vocab_size);
    TeacherLogitsFile::check_writable(options_.write_teacher_logits, shape);
    return;
  }
  logits_ = std::make_unique<TeacherLogitsFile>(options_.teacher_logits);
  const TeacherLogitsShape& there = logits_->shape();
  const std::string file = options_.teacher_logits.string();
  SW_CHECK(there.teacher_digest == shape.teacher_digest, usage,
           "{}: was made by another teacher (digest {}, --teacher has {}); give that teacher, or "
           "make the file again with --write-teacher-logits",
           file, there.teacher_digest, shape.teacher_digest);
  SW_CHECK(there.target_length == shape.target_length && there.vocab_size == shape.vocab_size,
           usage, "{}: was made for {} target positions, this run has {}; give the same lengths",
           file, there.target_length, shape.target_length);
  const LearningOptions& learning = options_.learning;
  SW_CHECK(learning.max_tokens > 0 || learning.steps <= logits_->rows() / learning.batch, usage,
           "{}: holds {} rows of the training data, {} steps of {} rows need more; give at most "
           "--steps {}, or make the file with as many",
           file, logits_->rows(), learning.steps, learning.batch, logits_->rows() / learning.batch);
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
  if (!options_.write_teacher_logits.empty()) {
    logits_ = std::make_unique<TeacherLogitsFile>(options_.write_teacher_logits, logits_shape_);
  }
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
  const auto metrics = RunDirectory(options_.run.run, RunDirectory::Joined{}).metrics_file();
  for (size_t i = 0; i < student.size(); ++i) {
    const nlohmann::ordered_json event =
        compare_models(trainer.step(), student[i], teacher[i],
                       baseline.empty() ? nullptr : &baseline[i], compression);
    // A command that is repeated after its end compares once more.
    if (!holds_event(metrics, event)) trainer.note(event);
  }
}

}  // namespace

TrainOutcome distill(DistillOptions& options, RunContext& context) {
  DistillationJob job(options, context.registry);
  return run_training(job, context);
}

TrainingPlan plan_distillation(DistillOptions& options, RunContext& context) {
  DistillationJob job(options, context.registry);
  return plan_training(job, context);
}

}  // namespace sw
