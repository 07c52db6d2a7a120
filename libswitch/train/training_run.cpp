#include "libswitch/train/training_run.h"

#include <fmt/ranges.h>

#include "libswitch/base/error.h"
#include "libswitch/base/fault.h"
#include "libswitch/base/version.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/progress_line.h"
#include "libswitch/train/resume.h"
#include "libswitch/train/training_setup.h"
#include "libswitch/train/watchdog.h"

namespace sw {
namespace {

CheckpointMeta constant_meta(TrainingJob& job, const PreparedRun& prepared,
                             const RunContext& context, std::string config_toml) {
  CheckpointMeta meta;
  meta.preset = prepared.preset;
  meta.tool_version = fmt::format("{} {}", context.tool, version());
  meta.optimizer = job.learning().optimizer;
  meta.config_toml = std::move(config_toml);
  meta.argv = context.argv;
  meta.tokenizer = job.tokenizer();
  meta.attributes = prepared.attributes;
  meta.attributes["compute_dtype"] = job.learning().dtype;
  meta.attributes["canonical_ranks"] = job.learning().canonical_ranks;
  meta.attributes["world_size"] = prepared.machine.mesh.ranks();
  meta.attributes["layout"] = prepared.machine.mesh.str();
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

TrainerHooks trainer_hooks(RunContext& context, const log::Config& log, ProgressLine& progress) {
  TrainerHooks hooks;
  hooks.committed = context.committed;
  hooks.reopen_log = [log] { log::configure(log); };
  hooks.before_log = [&progress] { progress.clear(); };
  hooks.stepped = [&progress](const TrainMetrics& m, const LineFacts& facts) {
    std::string text = fmt::format("step {} loss {:.4f} {} tok/s", m.step, m.loss,
                                   rough_count(m.tokens_per_second));
    if (facts.eta >= 0) text += " eta " + rough_duration(facts.eta);
    progress.draw(facts.share_done(m.step), text);
  };
  return hooks;
}

// Where to go on from, as rank 0 sees the run folder; nothing to start afresh.
std::optional<CheckpointReader> open_resume_point(World& world, const RunDirectory& run,
                                                  TrainingJob& job) {
  std::string file;
  if (world.rank() == 0) {
    job.take_in(run.path());
    if (const auto found = resume_point(run, job.run().resume)) file = found->string();
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

// A run that cannot fit would be ended by the kernel, without a word, and perhaps others with it.
void check_memory(const TrainingEstimate& estimate) {
  const int64_t there = machine_memory_bytes();
  SW_CHECK(there < 0 || estimate.total_bytes() <= there, device,
           "the run needs about {:.1f} GB of memory, this machine has {:.1f} GB; lower --batch, or "
           "give --accumulate or --recompute full (--dry-run shows what takes how much)",
           static_cast<double>(estimate.total_bytes()) * 1e-9, static_cast<double>(there) * 1e-9);
}

}  // namespace

void TrainingJob::initialize(Model& model, Optimizer&) { model.initialize(learning().seed); }

TrainOutcome run_training(TrainingJob& job, RunContext& context) {
  const RunOptions& options = job.run();
  World& world = context.world;
  const bool first = world.rank() == 0;
  configure_faults(world.rank(), world.size());
  // Nobody looks into the folder before rank 0 has taken it.
  std::optional<RunDirectory> taken;
  if (first) taken.emplace(options.run);
  if (first) remove_rank_board(options.run);
  world.group().barrier();
  if (!first) taken.emplace(options.run, RunDirectory::Joined{});
  const RunDirectory& run = *taken;
  OutsideRequests requests(first ? run.path() : std::filesystem::path());
  requests.stop_at_once(true);
  log::Config log = context.log;
  if (log.file.empty() && first) log.file = run.log_file().string();
  log::configure(log);
  log::info("{} {} | {}", context.tool, version(), run.path().string());

  Watchdog watchdog(watchdog_config(world, run, options));
  std::optional<CheckpointReader> reader = open_resume_point(world, run, job);
  if (reader) adopt(job, context, *reader);
  const PreparedRun prepared = prepare_run(job, world.size(), reader ? &*reader : nullptr);
  const std::string config =
      fmt::format("# {} {}\n{}", context.tool, version(), context.registry.to_toml());
  compare_configurations(world, config);

  const TrainingShape shape = training_shape(job, prepared);
  check_memory(estimate_training(shape));
  const Mesh mesh(world, prepared.machine.mesh);
  Model model(prepared.model, prepared.machine.compute, prepared.machine.device, mesh);
  auto optimizer = make_optimizer(shape.optimizer, model);
  CheckpointMeta meta = constant_meta(job, prepared, context, config);
  if (reader) record_canonical_change(reader->meta(), meta);
  const std::unique_ptr<Objective> objective = job.make_objective(mesh);
  TrainerConfig config_of_loop = trainer_config(job.learning(), options);
  config_of_loop.flops_per_step = estimate_training(shape).step_flops;
  config_of_loop.peak_flops = options.peak_gflops ? 1e9 * *options.peak_gflops
                                                  : measure_peak(world, prepared.machine.compute);
  job.configure(config_of_loop);

  ProgressLine progress(context.progress_bar && first);
  TrainerHooks hooks;
  if (first) hooks = trainer_hooks(context, log, progress);
  hooks.job = &world;
  hooks.watchdog = &watchdog;
  Trainer trainer(config_of_loop, model, *optimizer, *objective, run, std::move(meta),
                  std::move(hooks));
  const ParameterCount count = count_parameters(prepared.model);
  log::info("{} parameters, {} active | {} | {} x {}/{} positions a step | about {}B of memory{}",
            rough_count(static_cast<double>(count.total)),
            rough_count(static_cast<double>(count.active)), job.learning().dtype, shape.rows,
            shape.input_length, shape.target_length,
            rough_count(static_cast<double>(estimate_training(shape).total_bytes())),
            config_of_loop.peak_flops > 0
                ? fmt::format(" | {:.1f} GFLOP/s peak", config_of_loop.peak_flops * 1e-9)
                : "");
  if (world.size() > 1) {
    log::info("{} ranks on mesh {} | {} canonical ranks", world.size(), prepared.machine.mesh.str(),
              job.learning().canonical_ranks);
  }
  if (reader) {
    trainer.resume(*reader);
    log::info("going on after step {} from {} | digest {}", trainer.step(), reader->path().string(),
              reader->digest());
    reader.reset();
  } else {
    job.initialize(model, *optimizer);
  }
  if (first) run.write_config(config);
  requests.stop_at_once(false);
  const TrainOutcome outcome = trainer.run(requests);
  progress.clear();
  if (outcome == TrainOutcome::finished) {
    log::info("done: {} steps, {} tokens", trainer.steps_done(),
              rough_count(static_cast<double>(trainer.tokens())));
    requests.stop_at_once(true);  // everything is saved
    job.finished(trainer, model);
  }
  return outcome;
}

}  // namespace sw
