#include "libswitch/io/safetensors.h"

#include <gmock/gmock.h>

#include <cstring>
#include <fstream>

#include "libswitch/io/weights_folder.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/io/checkpoint_samples.h"

namespace sw {
namespace {

using fuzz::MemoryFile;
using test::TemporaryFolder;
using ::testing::HasSubstr;

void put(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A file with this header and `data` bytes of zeros.
std::string file_of(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, '\0');
}

std::string refusal(const std::string& bytes) {
  const MemoryFile file(bytes);
  try {
    open_safetensors(file.path());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::corrupt) << error.what();
    return error.what();
  }
  return "accepted";
}

std::string sample(const std::filesystem::path& path) {
  SafetensorsWriter writer(path,
                           {{"b", ElementType::bf16, Shape{3}, 0},
                            {"z", ElementType::f32, Shape{2, 2}, 0},
                            {"a", ElementType::f32, Shape{}, 0},
                            {"empty", ElementType::f32, Shape{0, 5}, 0}},
                           {{"format", "pt"}});
  const float z[4] = {1, 2, 3, 4}, a = 5;
  const uint16_t b[3] = {6, 7, 8};
  writer.write("b", 0, b, 6);
  writer.write("z", 8, z + 2, 8);
  writer.write("z", 0, z, 8);
  writer.write("a", 0, &a, 4);
  writer.commit();
  return read_file(path);
}

TEST(Safetensors, WritesTheBytesOfTheReferenceImplementation) {
  const TemporaryFolder folder;
  const std::string bytes = sample(folder / "x");
  std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("empty":{"dtype":"F32","shape":[0,5],"data_offsets":[4,4]},)"
      R"("z":{"dtype":"F32","shape":[2,2],"data_offsets":[4,20]},)"
      R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[20,26]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(bytes.substr(0, 8 + header.size()), file_of(header, 0));
  EXPECT_EQ(bytes.size(), 8 + header.size() + 26);
}

TEST(Safetensors, ReadsRowsOfWhatItWrote) {
  const TemporaryFolder folder;
  sample(folder / "x");
  const auto archive = open_safetensors(folder / "x");
  ASSERT_EQ(archive->tensors().size(), 4u);
  float row[2] = {}, scalar = 0;
  archive->read_rows(static_cast<size_t>(archive->find("z")), 1, 2, row);
  EXPECT_EQ(row[0], 3);
  EXPECT_EQ(row[1], 4);
  archive->read_rows(static_cast<size_t>(archive->find("a")), 0, 1, &scalar);
  EXPECT_EQ(scalar, 5);
  EXPECT_EQ(archive->find("c"), -1);
}

TEST(Safetensors, RefusesEveryTruncationAndEveryLongerFile) {
  const TemporaryFolder folder;
  const std::string bytes = sample(folder / "x");
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_NE(refusal(bytes.substr(0, n)), "accepted") << n;
  EXPECT_THAT(refusal(bytes + '\0'), HasSubstr("follow the last tensor"));
}

TEST(Safetensors, SurvivesEveryFlippedBitOfItsHeader) {
  const TemporaryFolder folder;
  std::string bytes = sample(folder / "x");
  const size_t header = bytes.size() - 26;
  for (size_t bit = 0; bit < 8 * header; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    refusal(bytes);  // or accepted: a name may be another one
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(Safetensors, RefusesHeadersThatBreakARule) {
  const auto tensor = [](const std::string& fields) { return "{\"t\":{" + fields + "}}"; };
  const std::string f32 = R"("dtype":"F32",)";
  const struct {
    std::string header;
    size_t data;
    const char* message;
  } cases[] = {
      {tensor(f32 + R"("shape":[2],"data_offsets":[0,8])"), 7, "cut short or damaged"},
      {tensor(f32 + R"("shape":[2],"data_offsets":[0,8])"), 9, "1 bytes follow"},
      {tensor(f32 + R"("shape":[3],"data_offsets":[0,8])"), 8, "has 8 bytes"},
      {tensor(f32 + R"("shape":[2],"data_offsets":[8,0])"), 8, "claims the bytes"},
      {tensor(f32 + R"("shape":[2],"data_offsets":[4,12])"), 12, "leave a hole"},
      {tensor(f32 + R"("shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,0])"), 0,
       "has 0 bytes"},
      {tensor(f32 + R"("shape":[-1],"data_offsets":[0,4])"), 4, "a negative number"},
      {tensor(f32 + R"("shape":[1.0],"data_offsets":[0,4])"), 4, "a fraction"},
      {tensor(f32 + R"("shape":[1,1,1,1,1],"data_offsets":[0,4])"), 4, "more than 4 dimensions"},
      {tensor(f32 + R"("shape":[[1]],"data_offsets":[0,4])"), 4, "a list"},
      {tensor(f32 + R"("shape":[1],"data_offsets":[0,4,4])"), 4, "a number"},
      {tensor(f32 + R"("shape":[1],"data_offsets":[0])"), 4, "lacks one of"},
      {tensor(f32 + R"("shape":[1])"), 4, "lacks one of"},
      {tensor(f32 + R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 4, "twice"},
      {tensor(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), 4, "unknown dtype"},
      {tensor(R"("dtype":"F4","shape":[1],"data_offsets":[0,1])"), 1, "has 1 bytes"},
      {tensor(f32 + R"("shape":[1],"data_offsets":[0,4],"more":1)"), 4, "unknown field"},
      {R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "there twice"},
      {R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
       R"("u":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "overlap"},
      {R"({"__metadata__":{"a":"b","a":"c"}})", 0, "twice"},
      {R"({"__metadata__":{"a":1}})", 0, "a number"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
      {R"({"t":3})", 0, "a number"},
      {R"([1])", 0, "does not begin with"},
      {R"({"t":)", 0, "not JSON"},
      {"{\"\xff\":{}}", 0, "not JSON"},
      {R"({} {})", 0, "not JSON"},
  };
  for (const auto& c : cases) EXPECT_THAT(refusal(file_of(c.header, c.data)), HasSubstr(c.message));
  EXPECT_EQ(refusal(file_of("{}", 0)), "accepted");
  EXPECT_EQ(refusal(file_of("{}   ", 0)), "accepted");
  EXPECT_THAT(refusal(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}")), HasSubstr("at most"));
}

TEST(WeightsFolder, RefusesIndexesThatLeadOutOfTheFolder) {
  const TemporaryFolder folder;
  for (const char* name :
       {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", ".hidden", "", "..", "a\\\\b"}) {
    put(folder / "model.safetensors.index.json",
        std::string(R"({"weight_map":{"t":")") + name + "\"}}");
    try {
      open_weights(folder.path());
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::corrupt);
      EXPECT_THAT(error.what(), HasSubstr("files of its own folder only"));
    }
  }
}

TEST(WeightsFolder, HoldsAnIndexAgainstItsFiles) {
  const TemporaryFolder folder;
  sample(folder / "one.safetensors");
  const auto open_with = [&](const std::string& map) -> std::string {
    put(folder / "model.safetensors.index.json", map);
    try {
      open_weights(folder.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::string one = R"(":"one.safetensors")";
  EXPECT_EQ(open_with(R"({"weight_map":{"a)" + one + R"(,"b)" + one + R"(,"z)" + one +
                      R"(,"empty)" + one + "}}"),
            "accepted");
  EXPECT_EQ(open_with(R"({"weight_map":{"a)" + one + "}}"), "accepted");
  EXPECT_EQ(open_weights(folder.path())->tensors().size(), 4u);
  sample(folder / "three.safetensors");
  EXPECT_THAT(open_with(R"({"weight_map":{"a)" + one + R"(,"b":"three.safetensors"}})"),
              HasSubstr("two files hold empty"));
  EXPECT_THAT(open_with(R"({"weight_map":{"q)" + one + "}}"), HasSubstr("but does not"));
  EXPECT_THAT(open_with(R"({"weight_map":{"a":"two.safetensors"}})"), HasSubstr("cannot open"));
  EXPECT_THAT(open_with(R"({"weight_map":{"a":3}})"), HasSubstr("has no file"));
  EXPECT_THAT(open_with(R"({"weight_map":{}})"), HasSubstr("names no tensor"));
  EXPECT_THAT(open_with(R"([])"), HasSubstr("no \"weight_map\""));
  EXPECT_THAT(open_with(R"({"weight_map":{"a)" + one + R"(,"a)" + one + "}}"),
              HasSubstr("given twice"));
  EXPECT_THAT(open_with(std::string(40, '[')), HasSubstr("more than 32 levels"));
}

}  // namespace
}  // namespace sw
