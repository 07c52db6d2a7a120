#include "libswitch/train/training_setup.h"

#include <sys/statvfs.h>
#include <sys/sysinfo.h>

#include "libswitch/base/error.h"
#include "libswitch/kernels/cpu/matmul_peak.h"
#include "libswitch/train/metrics.h"
#include "libswitch/train/resume.h"

namespace sw {

RunMachine settle_machine(LearningOptions& learning, const RunOptions& run, int64_t ranks,
                          int64_t experts) {
  RunMachine out;
  out.device = compute_device(run.device);
  out.mesh = resolve_mesh_shape(parse_mesh_shape(run.mesh), ranks, experts);
  learning.resolve(out.mesh.data);
  out.compute = compute_dtype(learning.dtype);
  recompute_from(run.recompute);
  return out;
}

namespace {

// A run goes on with the tool that began it. (What no tool for training wrote may be resumed.)
void check_tool(const std::string& tool, const CheckpointReader& reader) {
  const std::string& made = reader.meta().tool_version;
  const std::string other = made.substr(0, made.find(' '));
  for (const char* known : {"sw-pretrain", "sw-finetune", "sw-distill"}) {
    SW_CHECK(other != known || tool == other, usage,
             "{}: is of a run of {}, not of {}; give another --run", reader.path().string(), other,
             tool);
  }
}

}  // namespace

void adopt(TrainingJob& job, RunContext& context, const CheckpointReader& reader) {
  check_tool(context.tool, reader);
  job.yield_to_run(reader);
  std::shared_ptr<void> then;
  adopt_options(
      context.registry, reader, [&](OptionRegistry& registry) { then = job.declare(registry); },
      job.run().allow_changes);
}

PreparedRun prepare_run(TrainingJob& job, int64_t ranks, const CheckpointReader* before) {
  PreparedRun out = job.prepare(ranks, before);
  out.model.validate();
  if (out.model.experts > 0) check_router_config(router_config(out.model));
  trainer_config(job.learning(), job.run())
      .step.check_rows(job.learning().batch, out.machine.mesh.data);
  // A student that is only cut out of its teacher has no schedule.
  if (job.learning().steps > 0) job.learning().schedule_config().validate();
  return out;
}

TrainingShape training_shape(TrainingJob& job, const PreparedRun& prepared) {
  TrainingShape shape;
  shape.model = prepared.model;
  shape.optimizer = job.learning().optimizer_config();
  shape.compute = prepared.machine.compute;
  shape.rows = job.learning().batch;
  shape.input_length = prepared.input_length;
  shape.target_length = prepared.target_length;
  shape.step = trainer_config(job.learning(), job.run()).step;
  shape.mesh = prepared.machine.mesh;
  shape.background_saves = job.run().async_checkpoint;
  shape.frozen = prepared.frozen;
  shape.data_bytes = prepared.data_bytes;
  shape.evaluation_bytes = prepared.evaluation_bytes;
  return shape;
}

double measure_peak(World& world, DType dtype) {
  const double mine = 1e9 * kernels::cpu::measure_matmul_peak(dtype, 0.03);
  Tensor peak = Tensor::from({1}, std::vector<double>{mine});
  world.group().all_reduce(peak);
  return peak.data<double>()[0];
}

int64_t machine_memory_bytes() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) return -1;
  return static_cast<int64_t>((info.totalram + info.totalswap) * info.mem_unit);
}

namespace {

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

}  // namespace

TrainingPlan plan_training(TrainingJob& job, RunContext& context) {
  TrainingPlan plan;
  job.check_plannable();
  const RunOptions& options = job.run();
  std::optional<CheckpointReader> before;
  const RunDirectory run(options.run, RunDirectory::Joined{});
  if (const auto file = resume_point(run, options.resume)) {
    before.emplace(*file);
    adopt(job, context, *before);
    plan.resume_step = before->meta().step;
  }
  World& world = context.world;
  const PreparedRun prepared = prepare_run(job, world.size(), before ? &*before : nullptr);
  plan.estimate = estimate_training(training_shape(job, prepared));
  plan.beginning = prepared.beginning;
  plan.train_tokens = prepared.train_tokens;
  plan.train_examples = prepared.train_examples;
  plan.epochs = static_cast<double>(job.learning().steps) *
                static_cast<double>(job.learning().batch) /
                static_cast<double>(std::max<uint64_t>(plan.train_examples, 1));
  const double given = options.peak_gflops.value_or(0);
  plan.peak_flops = given > 0 ? 1e9 * given : measure_peak(world, prepared.machine.compute);
  plan.machine_memory_bytes = machine_memory_bytes();
  plan.free_disk_bytes = free_disk_bytes(options.run);
  const int64_t wanted = (options.keep_last + 1) * plan.estimate.checkpoint_bytes;
  SW_CHECK(plan.free_disk_bytes < 0 || plan.free_disk_bytes >= 2 * plan.estimate.checkpoint_bytes,
           io, "{}: {} bytes are free on this disk, two checkpoints need {}; give --run elsewhere",
           options.run.string(), rough_count(static_cast<double>(plan.free_disk_bytes)),
           rough_count(static_cast<double>(2 * plan.estimate.checkpoint_bytes)));
  if (plan.free_disk_bytes >= 0 && plan.free_disk_bytes < wanted) {
    log::warn("{}: {} bytes are free on this disk, --keep-last {} needs {}", options.run.string(),
              rough_count(static_cast<double>(plan.free_disk_bytes)), options.keep_last,
              rough_count(static_cast<double>(wanted)));
  }
  return plan;
}

}  // namespace sw
