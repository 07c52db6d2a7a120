#include "libswitch/train/pretrain_run.h"

#include <fmt/ranges.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "libswitch/base/config.h"
#include "libswitch/base/error.h"
#include "libswitch/base/fault.h"
#include "libswitch/base/version.h"
#include "libswitch/data/shard_reader.h"
#include "libswitch/data/shard_vocabulary.h"
#include "libswitch/io/checkpoint_folder.h"
#include "libswitch/kernels/cpu/matmul_peak.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/pretraining.h"
#include "libswitch/train/progress_line.h"
#include "libswitch/train/resume.h"
#include "libswitch/train/watchdog.h"

namespace sw {
namespace {

constexpr const char* kStdin = "-";

// Floating-point operations a second of this machine's matrix products: a short look, repeated at
// every start.
double measure_peak(DType dtype) { return 1e9 * kernels::cpu::measure_matmul_peak(dtype, 0.03); }

// Copies stdin to `file`, checked on the way, unless an earlier start of the run did.
void spool_stdin(const std::filesystem::path& file) {
  if (std::filesystem::exists(file)) {
    log::info("--data -: {} is there from an earlier start", file.string());
    return;
  }
  SW_CHECK(::isatty(STDIN_FILENO) != 1, usage,
           "--data -: stdin is a terminal; pipe a token shard into it");
  AtomicFile out(file);
  ShardStream stream(STDIN_FILENO, "stdin", [&](const void* data, size_t bytes) {
    write_all(out.fd(), data, bytes, out.temporary_path().string());
  });
  TokenBlock block;
  while (stream.next(block)) continue;
  out.commit();
  log::info("--data -: {} tokens of stdin went into {}", stream.tokens(), file.string());
}

std::vector<DataSource> data_sources(const DataOptions& options,
                                     const std::filesystem::path& run_folder) {
  std::vector<DataSource> sources;
  bool stdin_taken = false;
  for (const std::string& text : options.data) {
    DataSource source = parse_data_source(text);
    if (source.path == kStdin) {
      SW_CHECK(!stdin_taken, usage, "--data - is given twice; stdin holds one shard");
      stdin_taken = true;
      source.path = run_folder / "stdin.swt";
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

struct Prepared {
  std::unique_ptr<Dataset> dataset;
  std::vector<PretrainingObjective::NamedEvalSet> eval_sets;
  std::filesystem::path first_shard;
  ModelConfig model;
  DType compute = DType::f32;
  Device device;
  MeshShape mesh;
};

std::string hex(const std::array<uint8_t, 32>& sha256) {
  return to_hex(sha256.data(), sha256.size());
}

// The attribute of a checkpoint that names the vocabulary of its data.
constexpr const char* kVocabulary = "vocab_sha256";

std::string vocabulary_of(const CheckpointReader& reader) {
  const auto it = reader.meta().attributes.find(kVocabulary);
  const auto* text =
      it == reader.meta().attributes.end() ? nullptr : std::get_if<std::string>(&it->second);
  return text == nullptr ? "" : *text;
}

// Opens the data and settles every option that depends on something else. `ranks` are those of the
// job; `run_vocabulary` is what the run has been trained on so far, or empty.
Prepared prepare(PretrainOptions& options, int64_t ranks, const std::string& run_vocabulary) {
  Prepared out;
  SW_CHECK(!options.model.preset.empty() || options.model.config.vocab_size > 0, usage,
           "--preset is missing; give one of {}, or a .toml file", fmt::join(preset_names(), ", "));
  out.device = compute_device(options.run.device);
  LearningOptions& learning = options.learning;
  out.mesh = resolve_mesh_shape(parse_mesh_shape(options.run.mesh), ranks,
                                options.model.resolve().experts);
  learning.resolve(out.mesh.data);
  out.compute = compute_dtype(learning.dtype);
  recompute_from(options.run.recompute);

  const DatasetOptions data = options.data.dataset_options(learning.seed);
  const auto sources = data_sources(options.data, options.run.run);
  out.dataset = std::make_unique<Dataset>(sources, data);
  out.first_shard = sources.front().path;
  options.data.target_length = out.dataset->target_length();

  const DataVocabulary& vocabulary = out.dataset->vocabulary();
  const std::string sha256 = hex(vocabulary.sha256);
  SW_CHECK(run_vocabulary.empty() || run_vocabulary == sha256, corrupt,
           "{}: encoded with another vocabulary ({}...) than the data of the run so far ({}...); "
           "give data of the same vocabulary, or start another run with --run",
           out.first_shard.string(), sha256.substr(0, 16), run_vocabulary.substr(0, 16));
  int64_t& vocab_size = options.model.config.vocab_size;
  if (vocab_size == 0) vocab_size = vocabulary.padded_vocab_size;
  SW_CHECK(vocab_size >= vocabulary.vocab_size, usage,
           "--vocab-size is {}, but the data have {} ids; give at least that, or 0", vocab_size,
           vocabulary.vocab_size);
  for (const std::string& name : options.data.eval_data) {
    auto set = std::make_unique<EvalSet>(name, data, options.data.eval_tokens);
    SW_CHECK(set->vocabulary().sha256 == vocabulary.sha256, corrupt,
             "{}: was encoded with another vocabulary than {}", name, out.first_shard.string());
    out.eval_sets.push_back({name, std::move(set)});
  }
  out.model = options.model.resolve();
  out.model.validate();
  if (out.model.experts > 0) check_router_config(router_config(out.model));
  StepConfig step = trainer_config(learning, options.run).step;
  step.check_rows(learning.batch, out.mesh.data);
  learning.schedule_config().validate();
  return out;
}

// The vocabulary file for the checkpoints; without it they cannot turn tokens into text.
std::string tokenizer_bytes(const Prepared& prepared, const std::filesystem::path& given) {
  try {
    const ShardFile shard(prepared.first_shard);
    return load_shard_vocabulary(shard.header(), prepared.first_shard, given).model_bytes();
  } catch (const Error& error) {
    if (!given.empty() || error.kind() != ErrorKind::missing) throw;
    log::warn("{}; checkpoints will hold no vocabulary: give --vocab to change that", error.what());
    return {};
  }
}

CheckpointMeta constant_meta(const PretrainOptions& options, const Prepared& prepared,
                             const RunContext& context, std::string config_toml) {
  CheckpointMeta meta;
  meta.preset = options.model.preset;
  meta.tool_version = fmt::format("{} {}", context.tool, version());
  meta.optimizer = options.learning.optimizer;
  meta.config_toml = std::move(config_toml);
  meta.argv = context.argv;
  meta.tokenizer = tokenizer_bytes(prepared, options.data.vocab);
  meta.attributes["compute_dtype"] = options.learning.dtype;
  meta.attributes["canonical_ranks"] = options.learning.canonical_ranks;
  meta.attributes["world_size"] = prepared.mesh.ranks();
  meta.attributes["layout"] = prepared.mesh.str();
  meta.attributes[kVocabulary] = hex(prepared.dataset->vocabulary().sha256);
  return meta;
}

// A run keeps its bits as long as its canonical ranks stay: "4 to 8 after step 1200" tells where
// they did not.
constexpr const char* kCanonicalChanges = "canonical_ranks_changes";

void record_canonical_change(const CheckpointMeta& before, CheckpointMeta& meta) {
  const auto text = [&](const char* name) -> std::string {
    const auto it = before.attributes.find(name);
    const auto* value =
        it == before.attributes.end() ? nullptr : std::get_if<std::string>(&it->second);
    return value == nullptr ? "" : *value;
  };
  std::string changes = text(kCanonicalChanges);
  const int64_t now = std::get<int64_t>(meta.attributes.at("canonical_ranks"));
  const auto it = before.attributes.find("canonical_ranks");
  const auto* was = it == before.attributes.end() ? nullptr : std::get_if<int64_t>(&it->second);
  if (was != nullptr && *was != now) {
    if (!changes.empty()) changes += ", ";
    changes += fmt::format("{} to {} after step {}", *was, now, before.step);
    log::warn(
        "canonical ranks change from {} to {}: from here on the run has other bits than an "
        "unchanged one",
        *was, now);
  }
  if (!changes.empty()) meta.attributes[kCanonicalChanges] = changes;
}

TrainingShape training_shape(const PretrainOptions& options, const Prepared& prepared) {
  TrainingShape shape;
  shape.model = prepared.model;
  shape.optimizer = options.learning.optimizer_config();
  shape.compute = prepared.compute;
  shape.rows = options.learning.batch;
  shape.input_length = prepared.dataset->input_length();
  shape.target_length = prepared.dataset->target_length();
  shape.step = trainer_config(options.learning, options.run).step;
  shape.mesh = prepared.mesh;
  shape.background_saves = options.run.async_checkpoint;
  return shape;
}

void adopt(PretrainOptions& options, RunContext& context, const CheckpointReader& reader) {
  PretrainOptions then;
  adopt_options(
      context.registry, reader,
      [&](OptionRegistry& registry) { declare_pretrain_options(registry, then); },
      options.run.allow_changes);
}

int64_t free_disk_bytes(std::filesystem::path path) {
  std::error_code error;
  path = std::filesystem::absolute(path, error);
  while (!std::filesystem::exists(path, error) && path.has_relative_path()) {
    path = path.parent_path();
  }
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) return -1;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

TrainerHooks trainer_hooks(RunContext& context, const log::Config& log, ProgressLine& progress) {
  TrainerHooks hooks;
  hooks.committed = context.committed;
  hooks.reopen_log = [log] { log::configure(log); };
  hooks.before_log = [&progress] { progress.clear(); };
  hooks.stepped = [&progress](const TrainMetrics& m, const LineFacts& facts) {
    const double share =
        facts.steps > 0 ? static_cast<double>(m.step) / static_cast<double>(facts.steps) : 0;
    std::string text = fmt::format("step {} loss {:.4f} {} tok/s", m.step, m.loss,
                                   rough_count(m.tokens_per_second));
    if (facts.eta >= 0) text += " eta " + rough_duration(facts.eta);
    progress.draw(share, text);
  };
  return hooks;
}

}  // namespace

void declare_pretrain_options(OptionRegistry& registry, PretrainOptions& options) {
  declare_model_options(registry, options.model);
  declare_data_options(registry, options.data);
  declare_learning_options(registry, options.learning);
  declare_run_options(registry, options.run);
}

namespace {

// Where to go on from, as rank 0 sees the run folder; nothing to start afresh.
std::optional<CheckpointReader> open_resume_point(World& world, const RunDirectory& run,
                                                  const PretrainOptions& options) {
  std::string file;
  if (world.rank() == 0) {
    for (const std::string& text : options.data.data) {
      if (parse_data_source(text).path == kStdin) spool_stdin(run.path() / "stdin.swt");
    }
    if (const auto found = resume_point(run, options.run.resume)) file = found->string();
  }
  file = world.group().broadcast_bytes(file, 0);
  if (file.empty()) return std::nullopt;
  return std::make_optional<CheckpointReader>(file);
}

// All ranks must have come to the same configuration (another file system or processor shows here).
void compare_configurations(World& world, const std::string& config) {
  if (world.size() == 1) return;
  const std::vector<std::string> all = world.group().all_gather_bytes(config);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    SW_CHECK(all[rank] == all[0], usage,
             "rank {} resolved its options to another configuration than rank 0; give --dtype and "
             "paths that mean the same on every machine",
             rank);
  }
}

// Of all ranks together.
double measure_peak(World& world, DType dtype) {
  Tensor peak = Tensor::from({1}, std::vector<double>{measure_peak(dtype)});
  world.group().all_reduce(peak);
  return peak.data<double>()[0];
}

WatchdogConfig watchdog_config(World& world, const RunDirectory& run, const RunOptions& options) {
  WatchdogConfig config;
  config.rank = world.rank();
  config.ranks = world.size();
  config.host = world.host();
  config.run = run.path();
  if (options.hang_timeout) config.limit = options.hang_timeout->count();
  config.trace = &world.trace();
  config.abort = &process_abort();
  return config;
}

}  // namespace

int64_t machine_memory_bytes() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) return -1;
  return static_cast<int64_t>((info.totalram + info.totalswap) * info.mem_unit);
}

namespace {

// A run that cannot fit would be ended by the kernel, without a word, and perhaps others with it.
void check_memory(const TrainingEstimate& estimate) {
  const int64_t there = machine_memory_bytes();
  SW_CHECK(there < 0 || estimate.total_bytes() <= there, device,
           "the run needs about {:.1f} GB of memory, this machine has {:.1f} GB; lower --batch, or "
           "give --accumulate or --recompute full (--dry-run shows what takes how much)",
           static_cast<double>(estimate.total_bytes()) * 1e-9, static_cast<double>(there) * 1e-9);
}

}  // namespace

TrainOutcome pretrain(PretrainOptions& options, RunContext& context) {
  World& world = context.world;
  const bool first = world.rank() == 0;
  configure_faults(world.rank(), world.size());
  // Nobody looks into the folder before rank 0 has taken it.
  std::optional<RunDirectory> taken;
  if (first) taken.emplace(options.run.run);
  if (first) remove_rank_board(options.run.run);
  world.group().barrier();
  if (!first) taken.emplace(options.run.run, RunDirectory::Joined{});
  const RunDirectory& run = *taken;
  OutsideRequests requests(first ? run.path() : std::filesystem::path());
  requests.stop_at_once(true);
  log::Config log = context.log;
  if (log.file.empty() && first) log.file = run.log_file().string();
  log::configure(log);
  log::info("{} {} | {}", context.tool, version(), run.path().string());

  Watchdog watchdog(watchdog_config(world, run, options.run));
  std::optional<CheckpointReader> reader = open_resume_point(world, run, options);
  if (reader) adopt(options, context, *reader);
  Prepared prepared = prepare(options, world.size(), reader ? vocabulary_of(*reader) : "");
  const std::string config =
      fmt::format("# {} {}\n{}", context.tool, version(), context.registry.to_toml());
  compare_configurations(world, config);

  const TrainingShape shape = training_shape(options, prepared);
  check_memory(estimate_training(shape));
  const Mesh mesh(world, prepared.mesh);
  Model model(prepared.model, prepared.compute, prepared.device, mesh);
  auto optimizer = make_optimizer(shape.optimizer, model);
  CheckpointMeta meta = constant_meta(options, prepared, context, config);
  if (reader) record_canonical_change(reader->meta(), meta);
  const PretrainingObjective objective(std::move(prepared.dataset), options.learning.seed,
                                       options.learning.batch, std::move(prepared.eval_sets));
  TrainerConfig config_of_loop = trainer_config(options.learning, options.run);
  config_of_loop.flops_per_step =
      training_flops(prepared.model, shape.rows, shape.input_length, shape.target_length);
  config_of_loop.peak_flops = options.run.peak_gflops ? 1e9 * *options.run.peak_gflops
                                                      : measure_peak(world, prepared.compute);

  ProgressLine progress(context.progress_bar && first);
  TrainerHooks hooks;
  if (first) hooks = trainer_hooks(context, log, progress);
  hooks.job = &world;
  hooks.watchdog = &watchdog;
  Trainer trainer(config_of_loop, model, *optimizer, objective, run, std::move(meta),
                  std::move(hooks));
  const ParameterCount count = count_parameters(prepared.model);
  log::info("{} parameters, {} active | {} | {} x {}/{} positions a step | about {}B of memory{}",
            rough_count(static_cast<double>(count.total)),
            rough_count(static_cast<double>(count.active)), options.learning.dtype, shape.rows,
            shape.input_length, shape.target_length,
            rough_count(static_cast<double>(estimate_training(shape).total_bytes())),
            config_of_loop.peak_flops > 0
                ? fmt::format(" | {:.1f} GFLOP/s peak", config_of_loop.peak_flops * 1e-9)
                : "");
  if (world.size() > 1) {
    log::info("{} ranks on mesh {} | {} canonical ranks", world.size(), prepared.mesh.str(),
              options.learning.canonical_ranks);
  }
  if (reader) {
    trainer.resume(*reader);
    log::info("going on after step {} from {} | digest {}", trainer.step(), reader->path().string(),
              reader->digest());
    reader.reset();
  } else {
    model.initialize(options.learning.seed);
  }
  if (first) run.write_config(config);
  requests.stop_at_once(false);
  const TrainOutcome outcome = trainer.run(requests);
  progress.clear();
  if (outcome == TrainOutcome::finished) {
    log::info("done: {} steps, {} tokens", trainer.step(),
              rough_count(static_cast<double>(trainer.tokens())));
  }
  return outcome;
}

PretrainPlan plan_pretraining(PretrainOptions& options, RunContext& context) {
  PretrainPlan plan;
  std::string vocabulary;
  for (const std::string& text : options.data.data) {
    const bool spooled = std::filesystem::exists(options.run.run / "stdin.swt");
    SW_CHECK(parse_data_source(text).path != kStdin || spooled, usage,
             "--dry-run does not read stdin; give a file for --data");
  }
  if (std::filesystem::is_directory(options.run.run)) {
    for (const CheckpointFile& file : list_checkpoints(options.run.run)) {
      if (!checkpoint_fault(file.path).empty()) continue;
      const CheckpointReader reader(file.path);
      adopt(options, context, reader);
      vocabulary = vocabulary_of(reader);
      plan.resume_step = file.step;
      break;
    }
  }
  World& world = context.world;
  const Prepared prepared = prepare(options, world.size(), vocabulary);
  plan.estimate = estimate_training(training_shape(options, prepared));
  plan.train_tokens = prepared.dataset->tokens();
  for (int64_t s = 0; s < prepared.dataset->sources(); ++s) {
    plan.train_windows += prepared.dataset->windows(s);
  }
  plan.epochs = static_cast<double>(options.learning.steps) *
                static_cast<double>(options.learning.batch) /
                static_cast<double>(plan.train_windows);
  const double given = options.run.peak_gflops.value_or(0);
  plan.peak_flops = given > 0 ? 1e9 * given : measure_peak(world, prepared.compute);
  plan.machine_memory_bytes = machine_memory_bytes();
  plan.free_disk_bytes = free_disk_bytes(options.run.run);
  const int64_t wanted = (options.run.keep_last + 1) * plan.estimate.checkpoint_bytes;
  SW_CHECK(plan.free_disk_bytes < 0 || plan.free_disk_bytes >= 2 * plan.estimate.checkpoint_bytes,
           io, "{}: {} bytes are free on this disk, two checkpoints need {}; give --run elsewhere",
           options.run.run.string(), rough_count(static_cast<double>(plan.free_disk_bytes)),
           rough_count(static_cast<double>(2 * plan.estimate.checkpoint_bytes)));
  if (plan.free_disk_bytes >= 0 && plan.free_disk_bytes < wanted) {
    log::warn("{}: {} bytes are free on this disk, --keep-last {} needs {}",
              options.run.run.string(), rough_count(static_cast<double>(plan.free_disk_bytes)),
              options.run.keep_last, rough_count(static_cast<double>(wanted)));
  }
  return plan;
}

}  // namespace sw
