// What other HDF5 software sees: h5ls and h5dump, where they are installed.
#include <gmock/gmock.h>

#include <array>
#include <cstdio>

#include "tests/io/checkpoint_samples.h"

namespace sw {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

// Standard output and error of a command; its exit code in `code`.
std::string run(const std::string& command, int* code) {
  std::string output;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer;
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), n);
  }
  *code = ::pclose(pipe);
  return output;
}

bool installed(const std::string& tool) {
  int code = 0;
  run("command -v " + tool, &code);
  return code == 0;
}

TEST(CheckpointForOtherSoftware, H5lsReadsLikeATableOfContents) {
  if (!installed("h5ls")) GTEST_SKIP() << "h5ls (Debian package hdf5-tools) is not installed";
  const test::TemporaryFolder folder;
  const std::string path = test::save_sample(folder / "a.h5").path.string();
  int code = 0;
  const std::string list = run("h5ls -r " + path, &code);
  EXPECT_EQ(code, 0) << list;
  EXPECT_THAT(list, ContainsRegex("/model/encoder/block_001/moe/wi +Dataset \\{3, 6, 5\\}"));
  EXPECT_THAT(list, ContainsRegex("/model/shared/embedding +Dataset \\{11, 6\\}"));
  EXPECT_THAT(list, ContainsRegex("/meta/config.toml +Dataset \\{SCALAR\\}"));
  EXPECT_THAT(list, ContainsRegex("/telemetry/router/tokens +Dataset \\{2, 3, 4\\}"));
  EXPECT_THAT(list, ContainsRegex("/optim/encoder/block_001/moe/wi/vr +Dataset \\{3, 6\\}"));
}

TEST(CheckpointForOtherSoftware, H5dumpPrintsBfloat16AsNumbers) {
  if (!installed("h5dump")) GTEST_SKIP() << "h5dump (Debian package hdf5-tools) is not installed";
  const test::TemporaryFolder folder;
  const std::vector<TensorEntry> entries = {{"/model/x", DType::bf16, Shape{5}, {"d_model"}}};
  CheckpointWriter writer(folder / "a.h5", entries, test::sample_meta(), {});
  writer.write_tensor(
      "/model/x", Tensor::from<bf16>({5}, std::vector<bf16>{1.0f, -2.5f, 0.0f, 384.0f, 3.0e-5f}));
  const CommittedCheckpoint done = writer.finish();
  int code = 0;
  std::string dump = run("h5dump -d /model/x " + done.path.string(), &code);
  EXPECT_EQ(code, 0) << dump;
  EXPECT_THAT(dump, HasSubstr("(0): 1, -2.5, 0, 384, 3.00407e-05"));
  EXPECT_THAT(dump, HasSubstr("16-bit little-endian floating-point"));
  EXPECT_THAT(dump, HasSubstr("\"d_model\""));
  dump = run("h5dump -a /digest " + done.path.string(), &code);
  EXPECT_THAT(dump, HasSubstr("(0): \"" + done.digest + "\""));
  dump = run("h5dump -d /meta/config.toml " + done.path.string(), &code);
  EXPECT_THAT(dump, HasSubstr("preset = "));
}

}  // namespace
}  // namespace sw
