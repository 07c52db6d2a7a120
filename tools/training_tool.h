// What the tools that train have in common beside their options: what they print.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libswitch/train/training_run.h"
#include "tools/tool.h"

namespace sw {

/// A line of results, at once.
void print_line(const std::string& text);

/// The part of the description that holds for all of them: how they stop and go on, exit codes,
/// SW_FAULT, SIGPIPE.
void describe_training(ToolDescription& tool);

/// Runs the tool: with --dry-run `plan`, whose result is printed, else `train`, which prints the
/// path of every checkpoint it commits. Returns the exit code.
int run_training_tool(ToolRun& tool, OptionRegistry& registry, std::vector<std::string> argv,
                      const LearningOptions& learning, const RunOptions& run,
                      const std::function<TrainingPlan(RunContext&)>& plan,
                      const std::function<TrainOutcome(RunContext&)>& train);

}  // namespace sw
