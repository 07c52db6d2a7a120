#include "tools/training_tool.h"

#include <fmt/format.h>

#include <cstdio>

#include "libswitch/base/error.h"
#include "libswitch/base/fault.h"
#include "libswitch/base/log.h"
#include "libswitch/base/timer.h"
#include "libswitch/train/metrics.h"

namespace sw {

void print_line(const std::string& text) {
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

namespace {

// "1.25 GB", "640 MB".
std::string readable(int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (size >= 1e9) return fmt::format("{:.2f} GB", size * 1e-9);
  return fmt::format("{:.{}f} MB", size * 1e-6, size < 1e7 ? 1 : 0);
}

void print_plan(const TrainingPlan& plan, const LearningOptions& learning, const RunOptions& run) {
  const TrainingEstimate& e = plan.estimate;
  // What presets reach on a CPU; the time is an estimate, the rest is counted.
  constexpr double kShareOfPeak = 0.5;
  const double step_seconds = e.step_flops / (kShareOfPeak * plan.peak_flops);
  const auto line = [](const char* name, const std::string& value) {
    print_line(fmt::format("{:<22} {}", name, value));
  };
  line("parameters", fmt::format("{} ({} active)", e.parameters.total, e.parameters.active));
  const bool ranks = e.mesh.ranks() > 1;
  line(ranks ? "memory of a rank" : "memory",
       fmt::format("{} = weights {} + gradients {} + optimizer {}", readable(e.total_bytes()),
                   readable(e.weight_bytes), readable(e.gradient_bytes),
                   readable(e.optimizer_bytes)));
  line("",
       fmt::format(
           "  + activations {} + process {}{}", readable(e.activation_bytes),
           readable(e.process_bytes),
           (e.data_bytes > 0 ? " + examples " + readable(e.data_bytes) : "") +
               (e.copy_bytes > 0 ? " + copy for background saves " + readable(e.copy_bytes) : "")));
  if (plan.machine_memory_bytes >= 0) {
    line("memory there", readable(plan.machine_memory_bytes));
    if (plan.machine_memory_bytes < e.total_bytes()) {
      log::warn(
          "the run does not fit into this machine's memory; lower --batch, or give "
          "--accumulate or --recompute full");
    }
  }
  line("checkpoint",
       fmt::format("{}, up to {} with --keep-last {}", readable(e.checkpoint_bytes),
                   readable((run.keep_last + 1) * e.checkpoint_bytes), run.keep_last));
  if (ranks) line("written by a rank", "up to " + readable(e.checkpoint_part_bytes));
  if (plan.free_disk_bytes >= 0) line("free disk", readable(plan.free_disk_bytes));
  line("data", fmt::format("{} tokens, {} rows, {:.2f} epochs", plan.train_tokens,
                           plan.train_examples, plan.epochs));
  line("precision", learning.dtype);
  line("operations a step", fmt::format("{:.4g} GFLOP", e.step_flops * 1e-9));
  line("time",
       fmt::format("{:.3g} s a step, {} in all, at {:.0f} % of {:.0f} GFLOP/s", step_seconds,
                   rough_duration(step_seconds * static_cast<double>(learning.steps)),
                   100 * kShareOfPeak, plan.peak_flops * 1e-9));
  line("would start",
       plan.resume_step < 0 ? plan.beginning : fmt::format("after step {}", plan.resume_step));
}

}  // namespace

void describe_training(ToolDescription& tool) {
  tool.description +=
      "\n\n"
      "USR1, TERM or INT, or a file STOP in the run folder: commit a checkpoint and end with exit "
      "code 75; the same command line goes on. A second INT ends at once. USR2, or a file SAVE: "
      "commit a checkpoint and go on. HUP: open the log file anew. Under mpirun use USR1: it kills "
      "its processes soon after TERM or INT. Before training has begun there is nothing to save, "
      "and "
      "a stop ends the process at once, with 75 (INT: 130).";
  tool.ignores_sigpipe = true;
  tool.memory_hint = "lower --batch, or give --accumulate or --recompute full";
  tool.exit_notes = {{75, "stopped on request, with a checkpoint: start again to go on"},
                     {80, "training diverged"},
                     {81, "ranks hold different weights where they should hold the same"},
                     {82, "a rank hangs"}};
  tool.environment = {{"SW_FAULT", fault_help()}};
}

int run_training_tool(ToolRun& tool, OptionRegistry& registry, std::vector<std::string> argv,
                      const LearningOptions& learning, const RunOptions& run,
                      const std::function<TrainingPlan(RunContext&)>& plan,
                      const std::function<TrainOutcome(RunContext&)>& train) {
  RunContext context{join_world(tool),
                     registry,
                     tool.tool.name,
                     std::move(argv),
                     tool.log,
                     tool.progress() == ProgressMode::bar,
                     [](const CommittedCheckpoint& done) { print_line(done.path.string()); }};
  if (tool.common.dry_run) {
    const TrainingPlan planned = plan(context);
    if (launcher_rank() == 0) print_plan(planned, learning, run);
    return 0;
  }
  return train(context) == TrainOutcome::finished ? 0 : exit_code(ErrorKind::stopped);
}

}  // namespace sw
