#include "tools/tool.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/version.h"

namespace sw {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

struct Options {
  int64_t steps = 0;
};

void declare(OptionRegistry& registry, Options& options) {
  registry.group("train", "Training");
  registry.add("steps", &options.steps).at_least(1).required().help("optimizer steps to run");
}

class ToolTest : public ::testing::Test {
 protected:
  ToolTest() {
    tool.name = "sw-test";
    tool.summary = "try things";
    tool.usage = {"--steps N FILE"};
    tool.examples = {"sw-test --steps 1 a | wc"};
    tool.positional_name = "FILE";
    tool.max_positionals = 1;
    tool.memory_hint = "lower --batch";
  }
  ~ToolTest() override { std::signal(SIGPIPE, SIG_DFL); }

  // Runs the tool; `out` and `err` then hold its streams.
  int call(std::vector<std::string> args,
           const std::function<int(const Options&, ToolRun&)>& body) {
    args.insert(args.begin(), "sw-test");
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    Options options;
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = run_tool(
        static_cast<int>(argv.size()), argv.data(), tool,
        [&](OptionRegistry& registry) { declare(registry, options); },
        [&](ToolRun& run) { return body(options, run); });
    out = ::testing::internal::GetCapturedStdout();
    err = ::testing::internal::GetCapturedStderr();
    return code;
  }
  int call(std::vector<std::string> args) {
    return call(std::move(args),
                [](const Options&, ToolRun&) -> int { throw std::logic_error("the tool ran"); });
  }

  ToolDescription tool;
  std::string out, err;
};

TEST_F(ToolTest, ItRunsWithItsOptionsAndArguments) {
  EXPECT_EQ(call({"--steps", "3", "a.txt", "--threads=2", "-v"},
                 [](const Options& options, ToolRun& run) {
                   EXPECT_EQ(options.steps, 3);
                   EXPECT_THAT(run.arguments, ::testing::ElementsAre("a.txt"));
                   EXPECT_EQ(num_threads(), 2);
                   EXPECT_EQ(run.log.level, log::Level::debug);
                   EXPECT_EQ(run.progress(), ProgressMode::plain) << "stderr is no terminal here";
                   EXPECT_FALSE(run.color(1));
                   write_stdout("result\n");
                   log::info("a word");
                   return 1;
                 }),
            1);
  EXPECT_EQ(out, "result\n");
  EXPECT_THAT(err, MatchesRegex("..:..:.. info a word\n"));
}

TEST_F(ToolTest, UsageErrorsSayTryHelp) {
  EXPECT_EQ(call({"--steps", "x"}), 2);
  EXPECT_EQ(err,
            "sw-test: error: --steps: expected an integer of at least 1, got 'x'\n"
            "try 'sw-test --help'\n");
  EXPECT_EQ(out, "");
  EXPECT_EQ(call({"--stpes"}), 2);
  EXPECT_EQ(err,
            "sw-test: error: unknown option '--stpes'; did you mean '--steps'?\n"
            "try 'sw-test --help'\n");
  EXPECT_EQ(call({}), 2);
  EXPECT_EQ(err,
            "sw-test: error: --steps is missing; give --steps N: optimizer steps to run\ntry "
            "'sw-test --help'\n");
  EXPECT_EQ(call({"--steps=1", "a", "b"}), 2);
  EXPECT_EQ(err, "sw-test: error: unexpected argument 'b'\ntry 'sw-test --help'\n");
  tool.min_positionals = 1;
  EXPECT_EQ(call({"--steps=1"}), 2);
  EXPECT_EQ(err, "sw-test: error: FILE is missing\ntry 'sw-test --help'\n");
  EXPECT_EQ(call({"--steps=1", "--json", "a"}), 2);
  EXPECT_THAT(err, HasSubstr("--json goes with --build-info only"));
}

TEST_F(ToolTest, EveryErrorBecomesItsExitCode) {
  const auto with = [&](const std::function<void()>& action) {
    return call({"--steps=1"}, [&](const Options&, ToolRun&) {
      action();
      return 0;
    });
  };
  EXPECT_EQ(with([] { fail(ErrorKind::corrupt, "a.swt: block 3: checksum differs"); }), 65);
  EXPECT_EQ(err, "sw-test: error: a.swt: block 3: checksum differs\n");
  EXPECT_EQ(with([] { fail(ErrorKind::missing, "x"); }), 66);
  EXPECT_EQ(with([] { fail(ErrorKind::cannot_create, "x"); }), 73);
  EXPECT_EQ(with([] { fail(ErrorKind::stopped, "x"); }), 75);
  EXPECT_EQ(with([] { throw std::bad_alloc(); }), 69);
  EXPECT_EQ(err, "sw-test: error: out of memory; lower --batch\n");
  EXPECT_EQ(with([] { std::filesystem::create_directory("/proc/none/x"); }), 74);
  EXPECT_THAT(err, HasSubstr("/proc/none/x"));
  EXPECT_EQ(with([] { throw std::logic_error("odd"); }), 70);
  EXPECT_EQ(err, "sw-test: error: odd (a mistake in the program, please report it)\n");
  EXPECT_EQ(with([] { throw 3; }), 70);
}

TEST_F(ToolTest, RanksOtherThanTheFirstKeepQuietOnUsage) {
  ::setenv("OMPI_COMM_WORLD_RANK", "2", 1);
  EXPECT_EQ(call({"--steps", "x"}), 2);
  EXPECT_EQ(err, "");
  EXPECT_EQ(call({"--help"}), 0);
  EXPECT_EQ(out, "");
  EXPECT_EQ(call({"--steps=1"},
                 [](const Options&, ToolRun&) -> int { fail(ErrorKind::io, "disk full"); }),
            74);
  EXPECT_EQ(err, "sw-test: error: rank 2: disk full\n");
  ::unsetenv("OMPI_COMM_WORLD_RANK");
}

TEST_F(ToolTest, RequestsAreAnsweredOnStdout) {
  EXPECT_EQ(call({"-h"}), 0);
  EXPECT_THAT(out, StartsWith("Usage: sw-test --steps N FILE\ntry things\n\n"));
  EXPECT_EQ(err, "");
  EXPECT_EQ(call({"--help-all"}), 0);
  EXPECT_THAT(out, HasSubstr("\n  -q, --quiet\n"));
  EXPECT_EQ(call({"--version"}), 0);
  EXPECT_EQ(out, std::string("sw-test ") + version() + "\n");
  EXPECT_EQ(call({"--build-info"}), 0);
  EXPECT_THAT(out, HasSubstr("\nhdf5           1."));
  EXPECT_EQ(call({"--build-info", "--json"}), 0);
  const auto info = nlohmann::json::parse(out);
  for (const char* key : {"tool", "version", "commit", "compiler", "hdf5", "onednn",
                          "sentencepiece", "zstd", "mpi", "cuda"}) {
    EXPECT_NE(info.at(key), "") << key;
  }
  EXPECT_EQ(call({"--man"}), 0);
  EXPECT_THAT(out, StartsWith(".TH "));
  EXPECT_EQ(call({"--completion", "fish"}), 0);
  EXPECT_THAT(out, HasSubstr("complete -c sw-test -l steps"));
  EXPECT_EQ(call({"--completion", "csh"}), 2);
}

TEST_F(ToolTest, PrintedConfigurationRepeatsTheRun) {
  EXPECT_EQ(call({"--print-config", "--steps=2K"}), 0);
  EXPECT_EQ(out, std::string("# sw-test ") + version() + "\n[train]\nsteps = 2000\n");
  const auto file = std::filesystem::path(::testing::TempDir()) / "tool.toml";
  {
    FILE* stream = std::fopen(file.c_str(), "w");
    std::fputs(out.c_str(), stream);
    std::fclose(stream);
  }
  EXPECT_EQ(call({"-c", file.string()},
                 [](const Options& options, ToolRun& run) {
                   EXPECT_EQ(options.steps, 2000);
                   EXPECT_THAT(run.resolved_config(), HasSubstr("\n[train]\nsteps = 2000\n"));
                   return 0;
                 }),
            0);
  EXPECT_EQ(call({"-c", "/nowhere.toml"}), 66);
  EXPECT_EQ(call({"--print-config=origins", "-c", file.string()}), 0);
  EXPECT_THAT(out, HasSubstr("steps = 2000  # " + file.string() + ":3\n"));
  EXPECT_EQ(call({"--print-config=changed"}), 0);
  EXPECT_EQ(out, std::string("# sw-test ") + version() + "\n");
}

TEST_F(ToolTest, OutputThatStdoutDidNotTakeIsAnError) {
  const auto into_full = [&](const std::function<void()>& action) {
    return call({"--steps=1"}, [&](const Options&, ToolRun&) {
      FILE* full = std::fopen("/dev/full", "w");
      const int saved = ::dup(1);
      ::dup2(::fileno(full), 1);
      struct Restore {
        FILE* full;
        int saved;
        ~Restore() {
          std::fflush(stdout);
          ::dup2(saved, 1);
          ::close(saved);
          std::fclose(full);
        }
      } restore{full, saved};
      action();
      return 0;
    });
  };
  EXPECT_EQ(into_full([] { write_stdout("x"); }), 74);
  EXPECT_EQ(err, "sw-test: error: stdout: write failed: No space left on device\n");
  std::clearerr(stdout);
  EXPECT_EQ(into_full([] { std::printf("x"); }), 74) << "the tool did not look";
  std::clearerr(stdout);
}

TEST_F(ToolTest, AClosedPipeEndsAFilterQuietlyAndLeavesATrainerAlone) {
  const auto with_closed_stdout = [&](bool ignores) {
    tool.ignores_sigpipe = ignores;
    std::vector<std::string> args = {"sw-test", "--steps=1"};
    std::vector<char*> argv = {args[0].data(), args[1].data()};
    int ends[2];
    if (::pipe(ends) != 0) std::abort();
    ::close(ends[0]);
    ::dup2(ends[1], 1);
    Options options;
    std::exit(run_tool(
        2, argv.data(), tool, [&](OptionRegistry& registry) { declare(registry, options); },
        [&](ToolRun&) {
          write_stdout("x");
          return 0;
        }));
  };
  EXPECT_EXIT(with_closed_stdout(false), ::testing::KilledBySignal(SIGPIPE), "^$");
  EXPECT_EXIT(with_closed_stdout(true), ::testing::ExitedWithCode(74), "Broken pipe");
}

TEST_F(ToolTest, BinaryDataIsNotWrittenToATerminal) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  try {
    require_not_terminal(terminal, "a token shard", "redirect it or give -o FILE");
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(exit_code(e.kind()), 2);
    EXPECT_STREQ(
        e.what(),
        "a token shard is binary and its destination is a terminal; redirect it or give -o "
        "FILE");
  }
  ::close(terminal);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_NO_THROW(require_not_terminal(ends[1], "a token shard", "redirect it"));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(ToolTest, ColourFollowsOptionEnvironmentAndTerminal) {
  const auto color = [&](std::vector<std::string> args) {
    bool result = false;
    args.push_back("--steps=1");
    call(args, [&](const Options&, ToolRun& run) {
      result = run.color(1);
      return 0;
    });
    return result;
  };
  EXPECT_TRUE(color({"--color", "always"}));
  EXPECT_FALSE(color({"--color", "never"}));
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_TRUE(color({"--color", "always"})) << "the flag is the user's last word";
  EXPECT_FALSE(color({}));
  ::unsetenv("NO_COLOR");
}

}  // namespace
}  // namespace sw
