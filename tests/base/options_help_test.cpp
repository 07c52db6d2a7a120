#include "libswitch/base/options_help.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "libswitch/base/error.h"

namespace sw {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Options {
  std::string vocab, output;
  std::string dtype = "auto";
  int64_t steps = 0;
  double lr = 0.01;
  bool shuffle = true;
  bool eos = false;
  std::vector<std::string> data;
  int64_t many[30] = {};
};

ToolDescription describe() {
  ToolDescription tool;
  tool.name = "sw-test";
  tool.summary = "text in, token shards out";
  tool.usage = {"--steps N [OPTION...] [FILE...]"};
  tool.examples = {"zcat text.gz | sw-test --steps 3 > out.swt", "sw-test --steps 3 a | wc -c"};
  tool.description = "One paragraph\nof two lines.\n\n.SH is no request here, nor is \\fB or 'br.";
  tool.positional_name = "FILE";
  tool.exit_notes = {{75, "Stopped on request."}};
  tool.see_also = {"sw-eval(1)", "swt(5)"};
  return tool;
}

void declare(OptionRegistry& registry, Options& o) {
  registry.group("train", "Training");
  registry.add("steps", &o.steps).at_least(1).required().help("optimizer steps to run");
  registry.add_choice("dtype", &o.dtype, {"auto", "fp32", "bf16"}).help("type of weights");
  registry.add("lr", &o.lr)
      .above(0)
      .unit("per step")
      .advanced()
      .help("learning rate")
      .details("Its 'peak' [after] warm-up: see --warmup.");
  registry.add("output", &o.output)
      .short_name('o')
      .completes_files()
      .value_name("FILE")
      .help("where the shard goes");
  registry.add("shuffle", &o.shuffle).help("shuffle documents");
  registry.add("eos", &o.eos).help("end each document with a token");
  registry.add("data", &o.data).value_name("FILE[=WEIGHT]").completes_files().help("a shard");
}

class OptionsHelpTest : public ::testing::Test {
 protected:
  OptionsHelpTest() { declare(registry, o); }

  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> all;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) all.push_back(line);
    return all;
  }
  static void expect_fits(const std::string& text, size_t rows) {
    EXPECT_LE(lines(text).size(), rows) << text;
    for (const std::string& line : lines(text)) EXPECT_LE(display_width(line), 80) << line;
  }
  // Output of a shell command; its exit code goes to `code`.
  static std::string shell(const std::string& command, int* code) {
    FILE* pipe = ::popen(command.c_str(), "r");
    std::string text;
    for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
    *code = WEXITSTATUS(::pclose(pipe));
    return text;
  }
  static std::filesystem::path scratch(const std::string& name, const std::string& content) {
    const auto path = std::filesystem::path(::testing::TempDir()) / name;
    std::ofstream(path) << content;
    return path;
  }

  Options o;
  OptionRegistry registry;
  ToolDescription tool = describe();
};

TEST_F(OptionsHelpTest, ShortHelpReadsWordByWord) {
  EXPECT_EQ(short_help(registry, tool),
            "Usage: sw-test --steps N [OPTION...] [FILE...]\n"
            "text in, token shards out\n"
            "\n"
            "      --steps N               optimizer steps to run (required)\n"
            "      --dtype auto|fp32|bf16  type of weights (default auto)\n"
            "  -o, --output FILE           where the shard goes\n"
            "      --shuffle               shuffle documents (default true)\n"
            "      --eos                   end each document with a token\n"
            "      --data FILE[=WEIGHT]    a shard\n"
            "\n"
            "Also -c FILE.toml, --print-config, --dry-run, -q, -v; --help-all lists 1 more\n"
            "\n"
            "Examples:\n"
            "  zcat text.gz | sw-test --steps 3 > out.swt\n"
            "  sw-test --steps 3 a | wc -c\n");
}

TEST_F(OptionsHelpTest, ShortHelpFitsAScreenWithAnyNumberOfOptions) {
  registry
      .add_choice("mode", &o.vocab,
                  {"a-long-choice", "another-long-choice", "a-third-long-choice", "a-fourth"})
      .help("what to do of these many things, told in a phrase that does not fit the line");
  for (int i = 0; i < 30; ++i) {
    registry.add("option-" + std::to_string(i), &o.many[i])
        .help("a phrase that is far too long for the rest of the line, and still goes on and on");
  }
  const std::string text = short_help(registry, tool);
  expect_fits(text, 24);
  EXPECT_EQ(lines(text).size(), 24u);
  EXPECT_THAT(
      text,
      HasSubstr("      --mode a-long-choice|another-long-choice|…  what to do of these many …\n"));
  EXPECT_THAT(text, HasSubstr("--help-all lists 23 more\n"));
}

TEST_F(OptionsHelpTest, LongUsageIsBrokenAndCounted) {
  tool.usage = {"--steps N --vocab V.model --data A.swt [--data B.swt ...] [OPTION...] [FILE...]",
                "--info FILE"};
  for (int i = 0; i < 30; ++i) registry.add("option-" + std::to_string(i), &o.many[i]);
  const std::string text = short_help(registry, tool);
  expect_fits(text, 24);
  EXPECT_THAT(
      text, StartsWith("Usage: sw-test --steps N --vocab V.model --data A.swt [--data B.swt ...]\n"
                       "               [OPTION...] [FILE...]\n"
                       "       sw-test --info FILE\n"));
}

TEST_F(OptionsHelpTest, FullHelpTellsAllOfAnOption) {
  const std::string text = full_help(registry, tool);
  expect_fits(text, 1000);
  EXPECT_THAT(text,
              HasSubstr("Training ([train] in a file):\n  --steps N\n        Optimizer steps to "
                        "run. Takes an integer of at least 1. Required.\n"
                        "        Environment: SW_STEPS.\n"));
  EXPECT_THAT(text,
              HasSubstr("  --lr X\n        Learning rate. Its 'peak' [after] warm-up: see "
                        "--warmup. Takes a number\n        above 0 (per step). Default: 0.01. "
                        "Environment: SW_LR.\n"));
  EXPECT_THAT(text, HasSubstr("--no-shuffle turns it off."));
  EXPECT_THAT(text, HasSubstr("A shard. May be repeated. Environment: SW_DATA."));
}

TEST_F(OptionsHelpTest, TheManPageFormatsWithoutWarnings) {
  const std::string page = man_page(registry, tool);
  EXPECT_THAT(page, HasSubstr(".TH \"SW\\-TEST\" 1 \"\" \"switch\\-transformers "));
  EXPECT_THAT(page, HasSubstr(".SH NAME\nsw\\-test \\- text in, token shards out\n"));
  EXPECT_THAT(page, HasSubstr(".TP\n\\fB\\-o\\fR, \\fB\\-\\-output\\fR \\fIFILE\\fR\n"));
  EXPECT_THAT(page, HasSubstr(".TP\n\\fB75\\fR\nStopped on request.\n"));
  EXPECT_THAT(page, HasSubstr(".BR sw\\-eval (1),\n.BR swt (5)\n"));
  int code = 0;
  shell("command -v groff", &code);
  if (code != 0) GTEST_SKIP() << "groff is not installed";
  const auto path = scratch("sw-test.1", page);
  const std::string text =
      shell("groff -man -Tascii -P-c -P-b -P-u -ww " + path.string() + " 2>&1", &code);
  EXPECT_EQ(code, 0);
  EXPECT_THAT(text, Not(HasSubstr("warning")));
  EXPECT_THAT(text, HasSubstr(".SH is no request here, nor is \\fB or 'br."));
}

TEST_F(OptionsHelpTest, BashCompletionOffersOptionsChoicesAndFiles) {
  const auto script = scratch("sw-test.bash", completion_script(registry, tool, "bash"));
  scratch("tokens-for-completion.swt", "");
  const std::string driver =
      "source " + script.string() +
      "\ncompopt() { :; }\n"
      "try() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _sw_test; "
      "echo \"${COMPREPLY[*]}\"; }\ncd " +
      ::testing::TempDir() +
      "\n"
      "try sw-test --s\ntry sw-test --no\ntry sw-test --dtype ''\ntry sw-test --dtype = f\n"
      "try sw-test --dtype =\ntry sw-test --steps ''\ntry sw-test -o tokens-for\n"
      "try sw-test tokens-for\n";
  int code = 0;
  const std::string text =
      shell("bash -u " + scratch("driver.bash", driver).string() + " 2>&1", &code);
  EXPECT_EQ(text,
            "--steps --shuffle\n--no-shuffle\nauto fp32 bf16\nfp32\nauto fp32 bf16\n\n"
            "tokens-for-completion.swt\ntokens-for-completion.swt\n");
}

TEST_F(OptionsHelpTest, ZshAndFishCompletionQuoteTheirTexts) {
  EXPECT_EQ(completion_script(registry, tool, "zsh"),
            "#compdef sw-test\n_arguments -s \\\n"
            "  '--steps=[optimizer steps to run]:N: ' \\\n"
            "  '--dtype=[type of weights]:dtype:(auto fp32 bf16)' \\\n"
            "  '--lr=[learning rate]:X: ' \\\n"
            "  '--output=[where the shard goes]:FILE:_files' \\\n"
            "  '-o+[where the shard goes]:FILE:_files' \\\n"
            "  '--shuffle[shuffle documents]' \\\n"
            "  '--no-shuffle[shuffle documents]' \\\n"
            "  '--eos[end each document with a token]' \\\n"
            "  '*--data=[a shard]:FILE\\[=WEIGHT\\]:_files' \\\n"
            "  '*:FILE:_files'\n");
  bool odd = false;
  registry.add("odd", &odd).help("it's [odd]: yes");
  EXPECT_THAT(completion_script(registry, tool, "zsh"),
              HasSubstr("  '--odd[it'\\''s \\[odd\\]\\: yes]' \\\n"));
  const std::string fish = completion_script(registry, tool, "fish");
  EXPECT_THAT(fish, HasSubstr("complete -c sw-test -l dtype -x -a 'auto fp32 bf16' -d 'type of "
                              "weights'\n"));
  EXPECT_THAT(fish,
              HasSubstr("complete -c sw-test -l output -s o -r -F -d 'where the shard goes'\n"));
  EXPECT_THAT(fish, HasSubstr("complete -c sw-test -l odd -d 'it\\'s [odd]: yes'\n"));
  EXPECT_THROW(completion_script(registry, tool, "csh"), Error);
}

}  // namespace
}  // namespace sw
