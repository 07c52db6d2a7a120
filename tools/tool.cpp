#include "tools/tool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/version.h"
#include "libswitch/comm/rank_threads.h"

namespace sw {
namespace {

void declare_common(OptionRegistry& registry, CommonOptions& common, const ToolDescription& tool) {
  registry.group("common", "Common");
  registry.add("help", &common.help)
      .short_name('h')
      .scope(Scope::command_line)
      .help("the short help");
  registry.add("help-all", &common.help_all)
      .scope(Scope::command_line)
      .help("every option with its details");
  registry.add("version", &common.version).scope(Scope::command_line).help("the version");
  registry.add("build-info", &common.build_info)
      .scope(Scope::command_line)
      .help("commit, compiler and libraries of this build; JSON with --json");
  registry.add("quiet", &common.quiet).short_name('q').scope(Scope::local).help("log errors only");
  registry.add("verbose", &common.verbose)
      .short_name('v')
      .scope(Scope::local)
      .counts()
      .at_least(0)
      .help("log more; -vv logs everything");
  registry.add("log-file", &common.log_file)
      .completes_files()
      .value_name("FILE")
      .scope(Scope::local)
      .help("append the log to a file as well");
  registry
      .add_choice("progress", &common.progress,
                  {{"auto", ProgressMode::automatic},
                   {"bar", ProgressMode::bar},
                   {"plain", ProgressMode::plain},
                   {"none", ProgressMode::none}})
      .scope(Scope::local)
      .help("how progress is shown on stderr")
      .details("With auto, a bar on a terminal and plain lines elsewhere.");
  registry.add_choice("color", &common.color, {"auto", "always", "never"})
      .scope(Scope::local)
      .help("colour in texts; auto: on a terminal, unless NO_COLOR is set");
  registry.add("threads", &common.threads)
      .range(0, 4096)
      .scope(Scope::local)
      .default_text("all usable cores")
      .help("threads of this process")
      .details("Results do not depend on it.");
  registry.add("config", &common.config)
      .short_name('c')
      .value_name("FILE.toml")
      .completes_files()
      .scope(Scope::command_line)
      .help("read options from a TOML file; a later file wins");
  registry.add("set", &common.set)
      .value_name("KEY=VALUE")
      .assigns_options()
      .scope(Scope::command_line)
      .help("set any option by its key in a file, as its flag would");
  registry.add_choice("print-config", &common.print_config, {"all", "changed", "origins"})
      .implicit_value("all")
      .scope(Scope::command_line)
      .help("print the resolved options as TOML that repeats the run, and stop")
      .details("With changed, without defaults; with origins, with where each value came from.");
  registry.add("dry-run", &common.dry_run)
      .scope(Scope::command_line)
      .help("check everything, print estimates, and stop");
  registry.add("json", &common.json)
      .scope(Scope::command_line)
      .help(tool.prints_results ? "print results as JSON" : "with --build-info: as JSON");
  registry.add_choice("completion", &common.completion, {"bash", "zsh", "fish"})
      .scope(Scope::command_line)
      .help("print a completion script for a shell");
  registry.add("man", &common.man).scope(Scope::command_line).help("print the man page (roff)");
}

std::string build_info_text(const ToolDescription& tool, bool json) {
  if (json) {
    nlohmann::ordered_json object = {{"tool", tool.name}};
    for (const auto& [key, value] : build_info()) object[key] = value;
    return object.dump(2) + "\n";
  }
  std::string text = tool.name + "\n";
  for (const auto& [key, value] : build_info()) text += fmt::format("{:<14} {}\n", key, value);
  return text;
}

std::string config_text(const ToolDescription& tool, const OptionRegistry& registry,
                        ConfigDetail detail) {
  return fmt::format("# {} {}\n{}", tool.name, version(), registry.to_toml(detail));
}

// A log is appended to; a checkpoint or a shard, named by mistake, would not be one any more.
void check_log_file(const std::string& file) {
  std::error_code error;
  if (file.empty() || !std::filesystem::is_regular_file(file, error)) return;
  char begin[512] = {};
  std::ifstream stream(file, std::ios::binary);
  stream.read(begin, sizeof begin);
  char* end = begin + stream.gcount();
  SW_CHECK(std::find(begin, end, '\0') == end, usage,
           "--log-file {}: is there and no text; give the log another name", file);
}

void check_arguments(const ToolDescription& tool, const std::vector<std::string>& arguments) {
  const auto count = static_cast<int>(arguments.size());
  if (tool.max_positionals >= 0 && count > tool.max_positionals) {
    fail(ErrorKind::usage, "unexpected argument '{}'",
         arguments[static_cast<size_t>(tool.max_positionals)]);
  }
  if (count < tool.min_positionals) {
    fail(ErrorKind::usage, "{} is missing", tool.positional_name);
  }
}

void complain(const std::string& tool, const std::string& message) {
  const int rank = launcher_rank();
  const std::string who = rank > 0 ? fmt::format("rank {}: ", rank) : "";
  const std::string text = fmt::format("{}: error: {}{}\n", tool, who, message);
  std::fflush(stdout);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

bool wants_color(const std::string& mode, int fd) {
  if (mode != "auto") return mode == "always";
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != 0) return false;
  const char* term = std::getenv("TERM");
  if (term != nullptr && std::strcmp(term, "dumb") == 0) return false;
  return ::isatty(fd) == 1;
}

int answer_and_run(int argc, char** argv, const ToolDescription& tool,
                   const DeclareOptions& declare, const RunTool& run) {
  CommonOptions common;
  OptionRegistry registry;
  declare(registry);
  declare_common(registry, common, tool);
  const int rank = launcher_rank();

  std::vector<std::string> arguments = registry.parse_command_line(argc, argv);
  const auto answer = [&](const std::string& text) {
    if (rank == 0) write_stdout(text);
    return 0;
  };
  if (common.help) return answer(short_help(registry, tool));
  if (common.help_all) return answer(full_help(registry, tool));
  if (common.version) return answer(fmt::format("{} {}\n", tool.name, version()));
  if (common.build_info) return answer(build_info_text(tool, common.json));
  if (common.man) return answer(man_page(registry, tool));
  if (!common.completion.empty()) {
    return answer(completion_script(registry, tool, common.completion));
  }
  if (common.json && !tool.prints_results) {
    fail(ErrorKind::usage, "--json goes with --build-info only: this tool prints no results");
  }

  for (const std::string& file : common.config) {
    registry.apply_toml_file(file == "-" ? "/dev/stdin" : file, Source::file);
  }
  registry.apply_environment();
  registry.apply_presets();

  ToolRun context{tool, common, registry, std::move(arguments), {}};
  if (!common.print_config.empty()) {
    const auto detail = common.print_config == "changed"   ? ConfigDetail::changed
                        : common.print_config == "origins" ? ConfigDetail::origins
                                                           : ConfigDetail::all;
    return answer(config_text(tool, registry, detail));
  }
  registry.check_required();
  check_arguments(tool, context.arguments);

  context.log.level = common.quiet          ? log::Level::error
                      : common.verbose == 0 ? log::Level::info
                      : common.verbose == 1 ? log::Level::debug
                                            : log::Level::trace;
  check_log_file(common.log_file);
  context.log.file = rank == 0 ? common.log_file : "";
  context.log.color = context.color(STDERR_FILENO);
  context.log.rank = rank;
  log::configure(context.log);
  for (const std::string& slip : registry.environment_slips()) log::warn("{}", slip);
  set_threads(static_cast<int>(common.threads));
  return run(context);
}

}  // namespace

ProgressMode ToolRun::progress() const {
  if (common.progress != ProgressMode::automatic) return common.progress;
  if (common.quiet) return ProgressMode::none;
  return ::isatty(STDERR_FILENO) == 1 ? ProgressMode::bar : ProgressMode::plain;
}

bool ToolRun::color(int fd) const { return wants_color(common.color, fd); }

std::string ToolRun::resolved_config() const {
  return config_text(tool, registry, ConfigDetail::all);
}

void write_stdout(std::string_view text) {
  const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!whole || std::fflush(stdout) != 0) {
    fail(ErrorKind::io, "stdout: write failed: {}", std::strerror(errno));
  }
}

World& join_world(const ToolRun& tool) {
  World& world = process_world();
  if (world.size() > 1 && tool.common.threads == 0) set_threads(rank_threads(world));
  return world;
}

int launcher_rank() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* text = std::getenv(variable)) return std::atoi(text);
  }
  return 0;
}

void require_not_terminal(int fd, const std::string& what, const std::string& remedy) {
  SW_CHECK(::isatty(fd) != 1, usage, "{} is binary and {} is a terminal; {}", what,
           fd == STDOUT_FILENO ? "stdout" : "its destination", remedy);
}

namespace {

// Errors of which every rank of a job throws its own: rank 0 tells.
bool of_all_ranks(ErrorKind kind) {
  return kind == ErrorKind::usage || kind == ErrorKind::diverged || kind == ErrorKind::replicas ||
         kind == ErrorKind::hang;
}

int run_and_catch(int argc, char** argv, const ToolDescription& tool, const DeclareOptions& declare,
                  const RunTool& run) {
  try {
    const int code = answer_and_run(argc, argv, tool, declare, run);
    std::cout.flush();
    const bool taken = std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good();
    SW_CHECK(taken, io, "stdout: write failed: {}", std::strerror(errno));
    return code;
  } catch (const Error& e) {
    if (of_all_ranks(e.kind()) && launcher_rank() != 0) {
      // The end of this rank will be that of rank 0, which is to have its say first.
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      return exit_code(e.kind());
    }
    complain(tool.name, e.what());
    if (e.kind() == ErrorKind::usage) {
      std::fputs(fmt::format("try '{} --help'\n", tool.name).c_str(), stderr);
    }
    return exit_code(e.kind());
  } catch (const std::bad_alloc&) {
    complain(tool.name, fmt::format("out of memory; {}", tool.memory_hint.empty()
                                                             ? "free some, or give a smaller input"
                                                             : tool.memory_hint));
    return exit_code(ErrorKind::device);
  } catch (const std::system_error& e) {  // std::filesystem's errors, which name the path
    complain(tool.name, e.what());
    return exit_code(ErrorKind::io);
  } catch (const std::exception& e) {
    complain(tool.name, fmt::format("{} (a mistake in the program, please report it)", e.what()));
    return exit_code(ErrorKind::internal);
  } catch (...) {
    complain(tool.name, "an unknown exception (a mistake in the program, please report it)");
    return exit_code(ErrorKind::internal);
  }
}

}  // namespace

namespace {

// A standard stream that the caller closed must not become the number of a file that is opened
// next: log lines would go into it. Data meant for a closed stream are an error, the log is lost.
void keep_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1) continue;
    const int flags = fd == STDIN_FILENO ? O_WRONLY : fd == STDOUT_FILENO ? O_RDONLY : O_RDWR;
    if (::open("/dev/null", flags) < 0) return;  // the lowest free number is `fd`
  }
}

}  // namespace

int run_tool(int argc, char** argv, const ToolDescription& tool, const DeclareOptions& declare,
             const RunTool& run) {
  keep_standard_streams();
  std::signal(SIGPIPE, tool.ignores_sigpipe ? SIG_IGN : SIG_DFL);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file size is an error of the write
  const int code = run_and_catch(argc, argv, tool, declare, run);
  // Ranks that wait for this one must not wait for ever. Results that are negative or a stop on
  // request are the same on all ranks.
  const bool together = code == 0 || code == 1 || code == exit_code(ErrorKind::stopped);
  if (!together) leave_world_on_error(code);
  return code;
}

}  // namespace sw
