// sw-pretrain: token shards to checkpoints of a Switch Transformer.
#include "libswitch/train/pretrain_run.h"
#include "tools/training_tool.h"

namespace {

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "sw-pretrain";
  tool.summary = "pre-train a Switch Transformer, or its dense twin, on token shards";
  tool.usage = {"--preset P --data A.swt[=WEIGHT] [--data ...] --run DIR --steps N [OPTION...]"};
  tool.examples = {"sw-pretrain --preset tiny --data a.swt --run runs/a --steps 5K | tail -n 1",
                   "mpirun -n 8 sw-pretrain --preset tiny --data a.swt --run runs/c --steps 5K",
                   "cat a.swt b.swt | sw-pretrain --preset tiny --data - --run runs/b --steps 5K"};
  tool.description =
      "Trains by span corruption and prints the path of every checkpoint it commits. The run "
      "folder "
      "holds config.toml, metrics.jsonl, log.txt and checkpoints/; the same command line goes on "
      "where a run stopped, to the same bits.";
  sw::describe_training(tool);
  tool.see_also = {"sw-tokenize(1)", "sw-eval(1)", "sw-inspect-router(1)", "swt(5)",
                   "switch-checkpoint(5)"};
  return tool;
}

}  // namespace

int main(int argc, char** argv) {
  sw::PretrainOptions options;
  sw::OptionRegistry* bound = nullptr;
  return sw::run_tool(
      argc, argv, describe(),
      [&](sw::OptionRegistry& registry) {
        bound = &registry;
        sw::declare_pretrain_options(registry, options);
      },
      [&](sw::ToolRun& tool) {
        return sw::run_training_tool(
            tool, *bound, std::vector<std::string>(argv, argv + argc), options.learning,
            options.run,
            [&](sw::RunContext& context) { return sw::plan_pretraining(options, context); },
            [&](sw::RunContext& context) { return sw::pretrain(options, context); });
      });
}
