// sw-distill: a sparse teacher's checkpoint to checkpoints of a smaller student.
#include "libswitch/train/distill_run.h"
#include "tools/training_tool.h"

namespace {

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "sw-distill";
  tool.summary = "distil a sparse teacher into a dense or smaller sparse student";
  tool.usage = {
      "--teacher CHECKPOINT [--preset P|--student CHECKPOINT] (--data A.swt|--task [NAME:]FILE) "
      "--run DIR --steps N [OPTION...]"};
  tool.examples = {"sw-distill --teacher runs/t --data a.swt --run runs/s --steps 5K",
                   "sw-distill --teacher t.h5 --keep-experts 2 --data a.swt --run runs/p --steps 0",
                   "cat a.swt b.swt | sw-distill --teacher t.h5 --data - --run runs/s --steps 5K"};
  tool.description =
      "The student learns from the labels and from the teacher's distribution over them, which is "
      "computed as it goes, without dropout and jitter. By default it is the teacher's dense twin "
      "and begins with all of the teacher's weights that are no expert's. It prints the path of "
      "every checkpoint it commits; in the end the log compares student, teacher and --baseline on "
      "--eval-data or --eval-task: negative log perplexity and metrics, share of the teacher's "
      "gain that is kept, compression of the parameters.";
  sw::describe_training(tool);
  tool.see_also = {"sw-pretrain(1)", "sw-eval(1)", "sw-inspect-router(1)", "switch-checkpoint(5)",
                   "switch-teacher-logits(5)"};
  return tool;
}

}  // namespace

int main(int argc, char** argv) {
  sw::DistillOptions options;
  sw::OptionRegistry* bound = nullptr;
  return sw::run_tool(
      argc, argv, describe(),
      [&](sw::OptionRegistry& registry) {
        bound = &registry;
        sw::declare_distill_options(registry, options);
      },
      [&](sw::ToolRun& tool) {
        return sw::run_training_tool(
            tool, *bound, std::vector<std::string>(argv, argv + argc), options.learning,
            options.run,
            [&](sw::RunContext& context) { return sw::plan_distillation(options, context); },
            [&](sw::RunContext& context) { return sw::distill(options, context); });
      });
}
