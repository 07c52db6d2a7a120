#include "libswitch/base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "libswitch/base/error.h"

namespace sw {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

enum class Dtype { automatic, fp32, bf16 };

// One option of every type.
struct Options {
  std::string preset;
  int64_t d_model = 512;
  double dropout = 0.1;
  int64_t steps = 0;
  uint64_t seed = 1;
  int small = 3;
  float lr = 0.01f;
  std::optional<double> aux_loss;
  Dtype dtype = Dtype::automatic;
  std::string optimizer = "adafactor";
  Seconds max_time{0};
  bool shuffle = true;
  bool eos = false;
  std::vector<std::string> data;
  std::vector<int64_t> sizes = {1, 2};
  std::filesystem::path run;
  std::vector<std::string> set;
  int64_t verbose = 0;
  std::string print;
  int64_t threads = 0;
};

class OptionsTest : public ::testing::Test {
 protected:
  OptionsTest() {
    registry.group("model", "Model");
    registry.add("preset", &o.preset).names_preset();
    registry.add("d-model", &o.d_model).at_least(1);
    registry.add("dropout", &o.dropout).at_least(0).below(1);
    registry.group("train", "Training");
    registry.add("steps", &o.steps).short_name('n').at_least(1).required().help("optimizer steps");
    registry.add("seed", &o.seed);
    registry.add("small", &o.small);
    registry.add("lr", &o.lr).above(0);
    registry.add("aux-loss", &o.aux_loss);
    registry.add_choice("dtype", &o.dtype,
                        {{"auto", Dtype::automatic}, {"fp32", Dtype::fp32}, {"bf16", Dtype::bf16}});
    registry.add_choice("optimizer", &o.optimizer, {"adafactor", "adamw"});
    registry.add("max-time", &o.max_time);
    registry.group("data", "Data");
    registry.add("shuffle", &o.shuffle);
    registry.add("eos", &o.eos);
    registry.add("data", &o.data).short_name('d').value_name("FILE[=WEIGHT]");
    registry.add("sizes", &o.sizes).range(1, 100);
    registry.add("run", &o.run);
    registry.group("common", "Common");
    registry.add("set", &o.set).scope(Scope::command_line).assigns_options();
    registry.add("verbose", &o.verbose).short_name('v').scope(Scope::local).counts();
    registry.add("print", &o.print).scope(Scope::command_line).implicit_value("all");
    registry.add("threads", &o.threads).scope(Scope::local);
  }

  std::vector<std::string> parse(std::vector<const char*> args) {
    args.insert(args.begin(), "sw-test");
    return registry.parse_command_line(static_cast<int>(args.size()), args.data());
  }
  void toml(const std::string& text, Source source = Source::file) {
    registry.apply_toml(text, "run.toml", source);
  }
  // The message of the usage error that `action` throws.
  template <class Action>
  static std::string message(const Action& action) {
    try {
      action();
    } catch (const Error& e) {
      EXPECT_EQ(exit_code(e.kind()), 2) << e.what();
      return e.what();
    }
    return "no error";
  }
  std::string refusal(std::vector<const char*> args) {
    return message([&] { parse(args); });
  }
  std::string toml_refusal(const std::string& text) {
    return message([&] { toml(text); });
  }

  Options o;
  OptionRegistry registry;
};

TEST_F(OptionsTest, FlagsFillFieldsOfEveryType) {
  const auto rest = parse({"--d-model",
                           "1K",
                           "--dropout=0.25",
                           "-n",
                           "5",
                           "--seed=7",
                           "--lr",
                           "1e-3",
                           "--aux-loss",
                           "0.5",
                           "--dtype",
                           "bf16",
                           "--optimizer=adamw",
                           "--max-time",
                           "1h30m",
                           "--no-shuffle",
                           "--eos",
                           "-d",
                           "a.swt=2",
                           "--data",
                           "b,c.swt",
                           "--run",
                           "out",
                           "one",
                           "-vv",
                           "-",
                           "--",
                           "--two"});
  EXPECT_EQ(o.d_model, 1000);
  EXPECT_EQ(o.dropout, 0.25);
  EXPECT_EQ(o.steps, 5);
  EXPECT_EQ(o.seed, 7u);
  EXPECT_EQ(o.lr, 1e-3f);
  EXPECT_EQ(o.aux_loss, 0.5);
  EXPECT_EQ(o.dtype, Dtype::bf16);
  EXPECT_EQ(o.optimizer, "adamw");
  EXPECT_EQ(o.max_time.count(), 5400);
  EXPECT_FALSE(o.shuffle);
  EXPECT_TRUE(o.eos);
  EXPECT_THAT(o.data, ElementsAre("a.swt=2", "b,c.swt"));
  EXPECT_EQ(o.run, "out");
  EXPECT_EQ(o.verbose, 2);
  EXPECT_THAT(rest, ElementsAre("one", "-", "--two"));
  EXPECT_THAT(o.sizes, ElementsAre(1, 2)) << "an untouched list keeps its default";
}

TEST_F(OptionsTest, TheLastOfRepeatedFlagsWinsAndListsReplaceTheirDefault) {
  parse({"--steps", "1", "--steps", "2", "--sizes", "9", "--eos", "--no-eos"});
  EXPECT_EQ(o.steps, 2);
  EXPECT_THAT(o.sizes, ElementsAre(9));
  EXPECT_FALSE(o.eos);
}

TEST_F(OptionsTest, AnImplicitValueStandsForTheBareFlag) {
  EXPECT_THAT(parse({"--print", "changed"}), ElementsAre("changed"));
  EXPECT_EQ(o.print, "all");
  parse({"--print=changed"});
  EXPECT_EQ(o.print, "changed");
}

TEST_F(OptionsTest, SetIsAsGoodAsTheFlag) {
  parse({"--set", "train.steps=9", "--set", "d_model=64", "--set=d-model=65", "--data", "a",
         "--set", "data=b"});
  EXPECT_EQ(o.steps, 9);
  EXPECT_EQ(o.d_model, 65);
  EXPECT_THAT(o.data, ElementsAre("a", "b"));
  EXPECT_EQ(registry.at("steps").origin().source, Source::flag);
  EXPECT_EQ(registry.at("steps").origin().where, "--set train.steps");
  EXPECT_EQ(refusal({"--set", "steps"}), "--set: expected KEY=VALUE, got 'steps'");
  EXPECT_EQ(refusal({"--set", "stpes=1"}),
            "--set stpes: unknown key 'stpes'; did you mean 'steps'?");
  EXPECT_EQ(refusal({"--set", "model.steps=1"}),
            "--set model.steps: key 'steps' belongs to section [train], not [model]");
  EXPECT_EQ(refusal({"--set", "steps=x"}),
            "--set steps: expected an integer of at least 1, got 'x'");
  EXPECT_EQ(refusal({"--set", "print=x"}),
            "--set print: 'print' is for the command line only, as --print");
}

TEST_F(OptionsTest, PrecedenceHoldsWhateverTheOrderOfReading) {
  parse({"--seed", "5"});
  ::setenv("SW_SEED", "4", 1);
  ::setenv("SW_DROPOUT", "0.4", 1);
  ::setenv("SW_DATA", "x,y", 1);
  ::setenv("SW_LR", "", 1);
  registry.apply_environment();
  for (const char* name : {"SW_SEED", "SW_DROPOUT", "SW_DATA", "SW_LR"}) ::unsetenv(name);
  toml("seed = 3\ndropout = 0.3\nd_model = 3\ndata = ['f']\n[train]\nlr = 0.5\n");
  toml("d_model = 33");
  toml("seed = 2\ndropout = 0.2\nd_model = 2\nsmall = 2\n", Source::preset);
  EXPECT_EQ(o.seed, 5u);
  EXPECT_EQ(o.dropout, 0.4);
  EXPECT_EQ(o.d_model, 33) << "the later file wins";
  EXPECT_EQ(o.small, 2);
  EXPECT_EQ(o.lr, 0.5f) << "an empty variable is unset";
  EXPECT_EQ(o.optimizer, "adafactor");
  EXPECT_THAT(o.data, ElementsAre("x", "y"));
  EXPECT_EQ(registry.at("seed").origin().where, "--seed");
  EXPECT_EQ(registry.at("dropout").origin().where, "SW_DROPOUT");
  EXPECT_EQ(registry.at("d_model").origin().where, "run.toml:1");
  EXPECT_EQ(registry.at("small").origin().source, Source::preset);
  EXPECT_EQ(registry.at("optimizer").origin().where, "default");
}

TEST_F(OptionsTest, AMessageSaysOptionExpectedAndGot) {
  EXPECT_EQ(refusal({"--steps", "ten"}), "--steps: expected an integer of at least 1, got 'ten'");
  EXPECT_EQ(refusal({"--steps", "0"}), "--steps: expected an integer of at least 1, got '0'");
  EXPECT_EQ(refusal({"--steps="}), "--steps: expected an integer of at least 1, got ''");
  EXPECT_EQ(refusal({"--steps", "1.5"}),
            "--steps: expected an integer of at least 1, got '1.5', which is not whole");
  EXPECT_EQ(refusal({"--steps", "9999999999G"}),
            "--steps: expected an integer of at least 1, got "
            "'9999999999G', which does not fit in 64 bits");
  EXPECT_EQ(refusal({"--small", "3G"}),
            "--small: expected an integer between -2147483648 and 2147483647, got '3G'");
  EXPECT_EQ(refusal({"--seed", "-1"}), "--seed: expected an integer of at least 0, got '-1'");
  EXPECT_EQ(refusal({"--dropout", "1"}),
            "--dropout: expected a number of at least 0 and below 1, got '1'");
  EXPECT_EQ(refusal({"--lr", "0"}), "--lr: expected a number above 0, got '0'");
  EXPECT_EQ(refusal({"--lr", "nan"}), "--lr: expected a number above 0, got 'nan'");
  EXPECT_EQ(refusal({"--max-time", "1x"}),
            "--max-time: expected a duration such as 1h30m, got '1x'");
  EXPECT_EQ(refusal({"--max-time", "-1h"}),
            "--max-time: expected a duration such as 1h30m, got '-1h'");
  EXPECT_EQ(refusal({"--dtype", "bf61"}),
            "--dtype: expected one of auto, fp32, bf16, got 'bf61'; did you mean 'bf16'?");
  EXPECT_EQ(refusal({"--eos=maybe"}), "--eos: expected true or false, got 'maybe'");
  EXPECT_EQ(refusal({"--sizes", "101"}),
            "--sizes: expected an integer between 1 and 100, got '101'");
  EXPECT_EQ(refusal({"--run", "--eos"}), "--run: expected a path, got the option '--eos'");
  EXPECT_EQ(refusal({"--steps"}), "--steps: expected an integer of at least 1, got nothing");
  EXPECT_EQ(refusal({"-n"}), "-n: expected an integer of at least 1, got nothing");
}

TEST_F(OptionsTest, AnUnknownOptionNamesTheNearest) {
  EXPECT_EQ(refusal({"--stpes", "3"}), "unknown option '--stpes'; did you mean '--steps'?");
  EXPECT_EQ(refusal({"--d_model=3"}), "unknown option '--d_model'; did you mean '--d-model'?");
  EXPECT_EQ(refusal({"--no-shufle"}), "unknown option '--no-shufle'; did you mean '--no-shuffle'?");
  EXPECT_EQ(refusal({"--quite-something-else"}), "unknown option '--quite-something-else'");
  EXPECT_EQ(refusal({"-x"}), "unknown option '-x'");
}

TEST_F(OptionsTest, AFileNamesLineAndNearestKeyOrSection) {
  EXPECT_EQ(toml_refusal("\n[train]\nstpes = 3\n"),
            "run.toml:3: unknown key 'stpes'; did you mean 'steps'?");
  EXPECT_EQ(toml_refusal("[model]\nsteps = 3\n"),
            "run.toml:2: key 'steps' belongs to section [train], not [model]");
  EXPECT_EQ(toml_refusal("[trian]\nsteps = 3\n"),
            "run.toml:1: unknown section [trian]; did you mean 'train'?");
  EXPECT_EQ(toml_refusal("steps = 0"),
            "run.toml:1: steps: expected an integer of at least 1, got '0'");
  EXPECT_EQ(toml_refusal("steps = 1.0"),
            "run.toml:1: steps: expected an integer of at least 1, got '1'");
  EXPECT_EQ(toml_refusal("steps = [1]"),
            "run.toml:1: steps: expected an integer of at least 1, got an array");
  EXPECT_EQ(toml_refusal("steps = 2020-01-01"),
            "run.toml:1: steps: expected an integer of at least 1, got a date");
  EXPECT_EQ(toml_refusal("train.steps = {a = 1}"),
            "run.toml:1: steps: expected an integer of at least 1, got a table");
  EXPECT_EQ(toml_refusal("dtype = 'fp23'"),
            "run.toml:1: dtype: expected one of auto, fp32, bf16, got "
            "'fp23'; did you mean 'fp32'?");
  EXPECT_EQ(toml_refusal("print = 'all'"),
            "run.toml:1: 'print' is for the command line only, as --print");
  EXPECT_EQ(toml_refusal("steps = 1\n\n[train]\nsteps = 2\n"),
            "run.toml:4: steps is set twice, here and in line 1");
  EXPECT_THAT(toml_refusal("steps = 1\nsteps = "), HasSubstr("run.toml:2: not TOML: "));
}

TEST_F(OptionsTest, AFileTakesTextsWithUnits) {
  toml(
      "description = 'for the page'\nsteps = '2K'\nmax_time = '90m'\ndropout = 0\ndata = "
      "'one.swt'\n"
      "sizes = [3, '4']\nd-model = 8\nthreads = 2\n");
  EXPECT_EQ(o.steps, 2000);
  EXPECT_EQ(o.max_time.count(), 5400);
  EXPECT_EQ(o.dropout, 0.0);
  EXPECT_THAT(o.data, ElementsAre("one.swt"));
  EXPECT_THAT(o.sizes, ElementsAre(3, 4));
  EXPECT_EQ(o.d_model, 8);
  EXPECT_EQ(o.threads, 2);
}

TEST_F(OptionsTest, UnknownKeysCanBeIgnored) {
  registry.apply_toml("a = 1\nsteps = 4\n[nowhere]\nx = 1\n[model]\ny = 1\nd_model = 2\n", "c.toml",
                      Source::preset, UnknownKeys::ignore);
  EXPECT_EQ(o.steps, 4);
  EXPECT_EQ(o.d_model, 2);
}

TEST_F(OptionsTest, AMissingRequiredOptionIsNamed) {
  EXPECT_EQ(message([&] { registry.check_required(); }),
            "--steps is missing; give --steps N: optimizer steps");
  parse({"--steps", "1"});
  EXPECT_NO_THROW(registry.check_required());
}

TEST_F(OptionsTest, PrintedConfigurationReadsBackEqual) {
  const std::string nasty = "a \"b\" \\ 'c'\n\t\u00e4 = [x] # \x01";
  parse({"--dropout", "0.1234567890123456789", "--steps", "123456789012", "--lr", "0.1",
         "--aux-loss", "1e-300", "--dtype", "fp32", "--max-time", "1h30m1s250ms", "--no-shuffle",
         "--data", nasty.c_str(), "--run", "/tmp/with space", "--threads", "3"});
  const std::string printed = registry.to_toml();
  EXPECT_THAT(printed, HasSubstr("[train]\nsteps = 123456789012\nseed = 1\nsmall = 3\nlr = 0.1\n"
                                 "aux_loss = 1e-300\ndtype = \"fp32\"\n"));
  EXPECT_THAT(printed, HasSubstr("max_time = \"1h30m1s250ms\"\n"));
  EXPECT_THAT(printed, ::testing::Not(HasSubstr("threads")));
  const Options& before = o;
  OptionsTest_PrintedConfigurationReadsBackEqual_Test other;
  other.toml(printed);
  EXPECT_EQ(other.o.dropout, before.dropout);
  EXPECT_EQ(other.o.lr, before.lr);
  EXPECT_EQ(other.o.aux_loss, before.aux_loss);
  EXPECT_EQ(other.o.max_time, before.max_time);
  EXPECT_EQ(other.o.data, before.data);
  EXPECT_EQ(other.o.sizes, before.sizes);
  EXPECT_EQ(other.o.run, before.run);
  EXPECT_EQ(other.registry.to_toml(), printed);
}

TEST_F(OptionsTest, AnEmptyTextAfterAFlagIsASlip) {
  EXPECT_EQ(message([&] { parse({"--run", ""}); }), "--run: expected a path, got an empty text");
}

TEST_F(OptionsTest, NamesVariablesThatAreNearlyAnOptions) {
  setenv("SW_STEP", "3", 1);
  setenv("SW_OF_ANOTHER_TOOL", "3", 1);
  setenv("SW_PRESETS", "/a:/b", 1);  // the presets' folders, near --preset's SW_PRESET
  EXPECT_EQ(registry.environment_slips(),
            std::vector<std::string>{"SW_STEP is no option's variable; did you mean SW_STEPS?"});
  unsetenv("SW_STEP");
  unsetenv("SW_OF_ANOTHER_TOOL");
  unsetenv("SW_PRESETS");
}

TEST_F(OptionsTest, ConfigurationCanShowChangesAndOrigins) {
  EXPECT_EQ(registry.to_toml(ConfigDetail::changed), "");
  EXPECT_THAT(registry.to_toml(), HasSubstr("# steps = ...  # required\n"));
  toml("\nd_model = 7");
  EXPECT_EQ(registry.to_toml(ConfigDetail::changed), "[model]\nd_model = 7\n");
  EXPECT_THAT(registry.to_toml(ConfigDetail::origins),
              HasSubstr("d_model = 7  # run.toml:2\ndropout = 0.1  # default\n"));
}

TEST_F(OptionsTest, AConfigurationThatIsNotUtf8IsRefusedWhenWritten) {
  parse({"--run",
         "a\xff"
         "b"});
  EXPECT_EQ(message([&] { registry.to_toml(); }),
            "--run: 'a\xff"
            "b' cannot be written to a configuration: not UTF-8");
}

TEST_F(OptionsTest, DamagedFilesAreRefusedAndNothingElse) {
  const std::string whole =
      "description = 'x'\n[train]\nsteps = 1_000\nlr = 1e-3\nmax_time = '1h'\n[data]\n"
      "data = ['a', \"b\\n\"]\nsizes = [1, 2]\nshuffle = false\n";
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string text = whole;
    for (uint32_t edits = 1 + random() % 3; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + random() % 5); break;
        case 2: text.insert(at, text.substr(random() % text.size(), random() % 20)); break;
      }
    }
    try {
      toml(text);
    } catch (const Error& e) {
      ++refused;
      ASSERT_EQ(e.kind(), ErrorKind::usage) << text;
      ASSERT_THAT(e.what(), ::testing::StartsWith("run.toml:")) << text;
    }
  }
  EXPECT_GT(refused, 3000);
  EXPECT_LT(refused, 5000);
}

}  // namespace
}  // namespace sw
