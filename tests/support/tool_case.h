// A tool that trains, called in this process with its command line.
#pragma once

#include <string>
#include <vector>

#include "libswitch/train/training_run.h"

namespace sw::testing {

inline void parse_arguments(OptionRegistry& registry, std::vector<std::string> args) {
  args.insert(args.begin(), "sw-tool");
  std::vector<const char*> argv;
  for (const std::string& argument : args) argv.push_back(argument.c_str());
  registry.parse_command_line(static_cast<int>(argv.size()), argv.data());
  registry.apply_presets();
  registry.check_required();
}

/// What `run` does with these arguments; `options` hold what became of them.
template <class Options, class Result>
Result call_tool(void (*declare)(OptionRegistry&, Options&), Result (*run)(Options&, RunContext&),
                 const std::vector<std::string>& args, Options& options) {
  OptionRegistry registry;
  declare(registry, options);
  parse_arguments(registry, args);
  log::Config log;
  log.level = log::Level::error;
  RunContext context{process_world(), registry, "sw-tool", args, log, false, {}};
  return run(options, context);
}

inline std::vector<std::string> with(std::vector<std::string> args,
                                     const std::vector<std::string>& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

}  // namespace sw::testing
