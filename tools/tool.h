// The frame of every tool: options, help, log, signals, errors and exit code.
//
//   int main(int argc, char** argv) {
//     return sw::run_tool<Options>(argc, argv, describe(), declare, run);
//   }
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "libswitch/base/log.h"
#include "libswitch/base/options.h"
#include "libswitch/base/options_help.h"
#include "libswitch/comm/group.h"

namespace sw {

enum class ProgressMode { automatic, bar, plain, none };

/// Options that every tool has.
struct CommonOptions {
  bool help = false, help_all = false, version = false, build_info = false;
  bool quiet = false;
  int64_t verbose = 0;  // -v: 1, -vv: 2
  std::string log_file;
  ProgressMode progress = ProgressMode::automatic;
  std::string color = "auto";
  int64_t threads = 0;  // 0: all usable cores
  std::string print_config;
  std::vector<std::string> config;
  std::vector<std::string> set;
  bool dry_run = false;
  bool json = false;
  std::string completion;
  bool man = false;
};

/// What run_tool() hands to the tool's own code.
struct ToolRun {
  const ToolDescription& tool;
  const CommonOptions& common;
  const OptionRegistry& registry;
  std::vector<std::string> arguments;  // the positional ones
  log::Config log;  // as configured; a run folder adds its file and configures again

  /// The progress mode with `automatic` resolved: a bar when stderr is a terminal, else plain.
  ProgressMode progress() const;
  /// Whether text on `fd` (1 or 2) may carry colour: --color, NO_COLOR, TERM=dumb, a terminal.
  bool color(int fd) const;
  /// What config.toml of a run folder holds: a comment that names tool and version, then every
  /// resolved option.
  std::string resolved_config() const;
};

using DeclareOptions = std::function<void(OptionRegistry&)>;
using RunTool = std::function<int(ToolRun&)>;

/// Parses, answers the common requests (--help, --version, ...), sets threads, log and SIGPIPE,
/// calls `run` and returns its exit code. Errors go to stderr as "sw-x: error: ..." and become
/// their exit codes; nothing is thrown. Output that stdout did not take (disk full) is an error,
/// also when the tool did not look.
int run_tool(int argc, char** argv, const ToolDescription& tool, const DeclareOptions& declare,
             const RunTool& run);

/// The same with the tool's options struct as a value.
template <class Options>
int run_tool(int argc, char** argv, const ToolDescription& tool,
             void (*declare)(OptionRegistry&, Options&), int (*run)(const Options&, ToolRun&)) {
  Options options;
  return run_tool(
      argc, argv, tool, [&](OptionRegistry& registry) { declare(registry, options); },
      [&](ToolRun& context) { return run(options, context); });
}

/// Throws usage when `fd` is a terminal: binary data would garble it. `what` names the data and
/// `remedy` the way out: "redirect it or give -o FILE".
void require_not_terminal(int fd, const std::string& what, const std::string& remedy);

/// Writes data or results to stdout; throws io when they cannot be taken (disk full).
void write_stdout(std::string_view text);

/// The world of this tool's job (comm/group.h), with this rank's share of the machine's cores as
/// its threads unless --threads says otherwise.
World& join_world(const ToolRun& tool);

/// This process's rank as told by the launcher's environment (0 without a launcher).
int launcher_rank();

}  // namespace sw
