#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "libswitch/base/config.h"
#include "libswitch/base/error.h"
#include "libswitch/base/options.h"

namespace sw {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

struct Options {
  std::string preset;
  int64_t d_model = 1;
  int64_t experts = 0;
  int64_t steps = 5;
};

class OptionsPresetTest : public ::testing::Test {
 protected:
  OptionsPresetTest() {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    ::setenv("SW_PRESETS", ("/nowhere:" + folder.string()).c_str(), 1);
    registry.group("model", "Model");
    registry.add("preset", &o.preset).names_preset();
    registry.add("d-model", &o.d_model);
    registry.add("experts", &o.experts);
    registry.group("train", "Training");
    registry.add("steps", &o.steps);
  }
  ~OptionsPresetTest() override { ::unsetenv("SW_PRESETS"); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder / name) << text;
  }
  void parse(std::vector<const char*> args) {
    args.insert(args.begin(), "sw-test");
    registry.parse_command_line(static_cast<int>(args.size()), args.data());
  }
  std::string refusal(ErrorKind kind = ErrorKind::usage) {
    try {
      registry.apply_presets();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind);
      return e.what();
    }
    return "no error";
  }

  std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / fmt::format("sw presets {}", ::getpid());
  Options o;
  OptionRegistry registry;
};

TEST_F(OptionsPresetTest, APresetFillsWhatNothingStrongerSet) {
  write("small.toml", "description = 'x'\n[model]\nd_model = 64\nexperts = 8\n");
  parse({"--preset", "small", "--experts", "2"});
  registry.apply_presets();
  EXPECT_EQ(o.d_model, 64);
  EXPECT_EQ(o.experts, 2);
  EXPECT_EQ(o.steps, 5);
  EXPECT_EQ(registry.at("d-model").origin().where, (folder / "small.toml").string() + ":3");
  EXPECT_THAT(registry.to_toml(), HasSubstr("[model]\npreset = \"small\"\n"));
}

TEST_F(OptionsPresetTest, APresetExtendsAnother) {
  write("base.toml", "[model]\nd_model = 64\nexperts = 8\n");
  write("wide.toml", "extends = 'base'\n[model]\nd_model = 128\n");
  parse({"--preset", "wide"});
  registry.apply_presets();
  EXPECT_EQ(o.d_model, 128);
  EXPECT_EQ(o.experts, 8);
  write("base.toml", "extends = 'wide'\n");
  EXPECT_EQ(refusal(), (folder / "base.toml").string() + ":1: preset 'wide' extends itself");
  write("base.toml", "[model]\nd_model = 64\n");
  EXPECT_EQ(refusal(), "no error") << "a refusal leaves nothing behind";
}

TEST_F(OptionsPresetTest, SectionsForOtherToolsAreSkippedButNotSlips) {
  write("a.toml", "[model]\nd_model = 7\n[hardware]\nranks = 3\n");
  parse({"--preset", "a"});
  registry.apply_presets();
  EXPECT_EQ(o.d_model, 7);
  write("a.toml", "[modle]\nd_model = 7\n");
  EXPECT_EQ(refusal(),
            (folder / "a.toml").string() + ":1: unknown section [modle]; did you mean 'model'?");
  write("a.toml", "[model]\nd_modle = 7\n");
  EXPECT_EQ(refusal(),
            (folder / "a.toml").string() + ":2: unknown key 'd_modle'; did you mean 'd_model'?");
}

TEST_F(OptionsPresetTest, AnUnknownPresetNamesTheNearest) {
  write("switch-base-8.toml", "");
  write("tiny.toml", "");
  EXPECT_THAT(preset_names(), Contains("switch-base-8"));
  parse({"--preset", "switch-base8"});
  EXPECT_EQ(refusal(), "--preset: no preset 'switch-base8'; did you mean 'switch-base-8'?");
  parse({"--preset", "something-else-altogether"});
  EXPECT_THAT(refusal(), HasSubstr("--preset: no preset 'something-else-altogether'; there are "));
}

TEST_F(OptionsPresetTest, AFileIsAPresetTooAndStaysOutOfTheConfiguration) {
  const std::string file = (folder / "mine.toml").string();
  parse({"--preset", file.c_str()});
  EXPECT_EQ(refusal(ErrorKind::missing), "--preset: there is no preset file " + file);
  write("mine.toml", "d_model = 9\n");
  registry.apply_presets();
  EXPECT_EQ(o.d_model, 9);
  EXPECT_THAT(registry.to_toml(), HasSubstr("# preset = \"" + file + "\"\nd_model = 9\n"));
}

}  // namespace
}  // namespace sw
