// sw-finetune: a checkpoint and tasks to checkpoints of a tuned model.
#include "libswitch/train/finetune_run.h"
#include "tools/training_tool.h"

namespace {

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "sw-finetune";
  tool.summary = "tune a pre-trained model on tasks, text in and text out";
  tool.usage = {
      "--from CHECKPOINT --task [NAME:]FILE[=WEIGHT] [--task ...] --run DIR --steps N "
      "[OPTION...]"};
  tool.examples = {"sw-finetune --from runs/a --task boolq:train.jsonl.zst --run runs/b --steps 1K",
                   "sw-finetune --from a.h5 --task pairs.tsv --run runs/c --steps 1K | tail -n 1"};
  tool.description =
      "Trains on pairs of text, several to a row, and prints the path of every checkpoint it "
      "commits. Model, vocabulary and conventions are the checkpoint's; its optimizer state and "
      "step go on, or begin anew with --fresh-optimizer. Defaults are the paper's: dropout 0.1, in "
      "experts 0.4, a constant learning rate of 0.001. --eval-task is answered by generation, "
      "unpacked; --best METRIC keeps the best checkpoint as DIR/best.";
  sw::describe_training(tool);
  tool.see_also = {"sw-pretrain(1)", "sw-distill(1)", "sw-eval(1)", "sw-generate(1)",
                   "switch-checkpoint(5)"};
  return tool;
}

}  // namespace

int main(int argc, char** argv) {
  sw::FinetuneOptions options;
  sw::OptionRegistry* bound = nullptr;
  return sw::run_tool(
      argc, argv, describe(),
      [&](sw::OptionRegistry& registry) {
        bound = &registry;
        sw::declare_finetune_options(registry, options);
      },
      [&](sw::ToolRun& tool) {
        return sw::run_training_tool(
            tool, *bound, std::vector<std::string>(argv, argv + argc), options.learning,
            options.run,
            [&](sw::RunContext& context) { return sw::plan_finetuning(options, context); },
            [&](sw::RunContext& context) { return sw::finetune(options, context); });
      });
}
