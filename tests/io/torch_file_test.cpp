#include "libswitch/io/torch_file.h"

#include <gmock/gmock.h>

#include <fstream>

#include "libswitch/io/state_dict_pickle.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/io/checkpoint_samples.h"
#include "tests/io/torch_samples.h"
#include "tests/support/allocation_peak.h"

namespace sw {
namespace {

using fuzz::MemoryFile;
using test::make_pickle;
using test::make_torch_file;
using test::make_zip;
using test::PickleTensor;
using test::TemporaryFolder;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

const std::string& six_floats() {
  static const std::string bytes = floats({0, 1, 2, 3, 4, 5});
  return bytes;
}
PickleTensor plain() { return {"w", "FloatStorage", "0", 6, 0, {2, 3}, {3, 1}}; }

std::string refusal(const std::string& bytes) {
  const MemoryFile file(bytes);
  try {
    open_torch_file(file.path());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::corrupt) << error.what();
    return error.what();
  }
  return "accepted";
}

std::vector<float> values(const TensorArchive& archive, const std::string& name, int64_t begin,
                          int64_t end) {
  const auto index = static_cast<size_t>(archive.find(name));
  const ArchiveTensor& tensor = archive.tensors().at(index);
  std::vector<float> out(
      static_cast<size_t>(tensor.shape.elements() / tensor.rows() * (end - begin)));
  archive.read_rows(index, begin, end, out.data());
  return out;
}

class SavedByPyTorch : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(TorchFile, SavedByPyTorch,
                         ::testing::Values("state_dict.bin", "state_dict_before_1.6.bin"));

TEST_P(SavedByPyTorch, IsReadViewsAndAliasesIncluded) {
  const auto archive =
      open_torch_file(std::string(SW_SOURCE_DIR "/tests/golden/torch/") + GetParam());
  std::vector<std::string> names;
  for (const ArchiveTensor& tensor : archive->tensors()) names.push_back(tensor.name);
  EXPECT_THAT(names, ElementsAre("alias", "bf16", "empty", "every_second", "half", "scalar",
                                 "second_row", "table", "transposed"));
  EXPECT_THAT(values(*archive, "table", 0, 2), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(values(*archive, "table", 1, 2), ElementsAre(3, 4, 5));
  EXPECT_THAT(values(*archive, "transposed", 0, 3), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(values(*archive, "transposed", 1, 3), ElementsAre(1, 4, 2, 5));
  EXPECT_THAT(values(*archive, "second_row", 0, 3), ElementsAre(3, 4, 5));
  EXPECT_THAT(values(*archive, "every_second", 0, 2), ElementsAre(0, 2, 3, 5));
  EXPECT_THAT(values(*archive, "scalar", 0, 1), ElementsAre(7));
  const auto at = [&](const char* name) {
    return archive->tensors()[static_cast<size_t>(archive->find(name))];
  };
  EXPECT_EQ(at("alias").identity, at("table").identity);
  EXPECT_NE(at("second_row").identity, at("table").identity);
  EXPECT_EQ(at("bf16").type, ElementType::bf16);
  EXPECT_EQ(at("half").type, ElementType::f16);
  EXPECT_EQ(at("empty").shape, (Shape{0, 4}));
}

TEST(TorchFile, ReadsAFileMadeByHand) {
  const TemporaryFolder folder;
  std::ofstream(folder / "x.bin", std::ios::binary) << make_torch_file(
      {plain(), {"t", "FloatStorage", "0", 6, 1, {2, 2}, {1, 3}}}, {{"0", six_floats()}});
  const auto archive = open_torch_file(folder / "x.bin");
  EXPECT_THAT(values(*archive, "w", 1, 2), ElementsAre(3, 4, 5));
  EXPECT_THAT(values(*archive, "t", 0, 2), ElementsAre(1, 4, 2, 5));
}

TEST(TorchFile, ReadsTheWideFieldsOfLargeFiles) {
  const MemoryFile file(make_torch_file({plain()}, {{"0", six_floats()}}, {.wide = true}));
  EXPECT_THAT(values(*open_torch_file(file.path()), "w", 1, 2), ElementsAre(3, 4, 5));
}

void survive_damage(std::string bytes) {
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_NE(refusal(bytes.substr(0, n)), "accepted") << n;
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    refusal(bytes);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(TorchFile, SurvivesEveryTruncationAndEveryFlippedBit) {
  survive_damage(make_torch_file({plain()}, {{"0", six_floats()}}));
  survive_damage(make_torch_file({plain()}, {{"0", six_floats()}}, {.wide = true}));
  survive_damage(test::make_legacy_torch_file({plain()}, {{"0", six_floats()}}));
}

TEST(TorchFile, RefusesTensorsThatTheirStorageDoesNotHold) {
  const auto with = [](PickleTensor tensor) {
    return refusal(make_torch_file({std::move(tensor)}, {{"0", six_floats()}}));
  };
  EXPECT_EQ(with(plain()), "accepted");
  const char* message = "a tensor that its storage does not hold";
  constexpr int64_t kHuge = int64_t{1} << 62;
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 1, {2, 3}, {3, 1}}), HasSubstr(message));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 0, {2, 3}, {4, 1}}), HasSubstr(message));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 7, {0}, {1}}), HasSubstr(message));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 0, {kHuge, kHuge}, {0, 0}}), HasSubstr(message));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 0, {7}, {0}}), HasSubstr(message));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 0, {3}, {kHuge}}), HasSubstr(message));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 0, {3}, {-1}}), HasSubstr("negative"));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 6, 0, {3}, {1, 1}}), HasSubstr("sizes and strides"));
  EXPECT_THAT(with({"w", "FloatStorage", "0", 7, 0, {3}, {1}}),
              HasSubstr("storage 0 has 24 bytes"));
  EXPECT_THAT(with({"w", "DoubleStorage", "0", 6, 0, {3}, {1}}),
              HasSubstr("storage 0 has 24 bytes"));
  EXPECT_THAT(with({"w", "FloatStorage", "1", 6, 0, {3}, {1}}), HasSubstr("which is not there"));
  EXPECT_THAT(with({"w", "FloatStorage", "0", kHuge, 0, {3}, {1}}), HasSubstr("has 24 bytes"));
  EXPECT_THAT(refusal(make_torch_file({plain(), plain()}, {{"0", six_floats()}})),
              HasSubstr("there twice"));
}

TEST(TorchFile, ShowsNamesOfStrangersInPrintableCharacters) {
  PickleTensor tensor = plain();
  tensor.name = "w\xff\x1b[31m" + std::string(200, 'x');
  tensor.storage = "1";
  const std::string message = refusal(make_torch_file({tensor}, {{"0", six_floats()}}));
  EXPECT_THAT(message, HasSubstr("tensor w??[31mxxx"));
  EXPECT_THAT(message, HasSubstr("xxx... lies in"));
}

std::string pickle_refusal(const std::string& pickle) {
  try {
    read_state_dict_pickle(pickle, "x");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::corrupt) << error.what();
    return error.what();
  }
  return "accepted";
}

TEST(TorchFile, RefusesOldFilesWhoseStoragesDoNotFit) {
  const std::string file = test::make_legacy_torch_file({plain()}, {{"0", six_floats()}});
  EXPECT_EQ(refusal(file), "accepted");
  EXPECT_THAT(refusal(file + "x"), HasSubstr("1 bytes follow the last storage"));
  EXPECT_THAT(refusal(test::make_legacy_torch_file({plain()}, {{"1", six_floats()}})),
              HasSubstr("no tensor lies in the storage \"1\""));
  EXPECT_THAT(refusal(test::make_legacy_torch_file({plain()}, {})),
              HasSubstr("which is not there"));
  EXPECT_THAT(refusal(test::make_legacy_torch_file({plain()}, {{"0", six_floats().substr(4)}})),
              HasSubstr("6 elements of F32 are expected"));
  std::string longer = file;
  longer[file.size() - six_floats().size() - 1] = 1;
  EXPECT_THAT(refusal(longer), HasSubstr("cut short or damaged"));
}

TEST(StateDictPickle, RunsNothingButDictionariesOfTensors) {
  EXPECT_THAT(pickle_refusal("\x80\x02"
                             "cos\nsystem\n" +
                             test::pickle_text("ls") + "\x85R."),
              HasSubstr("asks for os.system"));
  EXPECT_THAT(pickle_refusal("\x80\x02"
                             "cbuiltins\neval\n."),
              HasSubstr("asks for builtins.eval"));
  EXPECT_THAT(pickle_refusal("\x80\x02"
                             "ctorch\nload\n."),
              HasSubstr("asks for torch.load"));
  EXPECT_THAT(pickle_refusal("\x80\x02"
                             "cos\nsys\x1b[31m\n."),
              HasSubstr("os.sys?[31m"));
  // INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1, PERSID, REDUCE of a class with state, FRAME
  for (const char* opcode : {"i", "o", "\x81", "\x93", "\x82", "P", "\x92", "\x95"}) {
    EXPECT_THAT(pickle_refusal(std::string("\x80\x02}") + opcode), HasSubstr("refused")) << opcode;
  }
}

TEST(StateDictPickle, RefusesProgramsThatDoNotMakeSense) {
  for (const std::string program : {"",
                                    ".",
                                    "\x80\x09}.",
                                    "K",
                                    "(.",
                                    "}}.",
                                    "N.",
                                    "t",
                                    "(t.",
                                    "\x85",
                                    "s",
                                    "}s",
                                    "}NNu",
                                    "(u",
                                    "}(Nu",
                                    "N(NNu",
                                    "h",
                                    "h\x05.",
                                    "q\x00",
                                    "}q\x05.",
                                    "Q",
                                    "NQ",
                                    ")Q",
                                    "R",
                                    "NNR",
                                    "}b",
                                    "NNb",
                                    "X\xff\xff\xff\xff",
                                    "\x8a\x09"
                                    "123456789",
                                    "c",
                                    "cabc",
                                    "ccollections\nOrderedDict\nNR",
                                    "ccollections\nOrderedDict\n",
                                    "}NNs.",
                                    "}X\1",
                                    "ctorch\nFloatStorage\n)R.",
                                    "ctorch._utils\n_rebuild_tensor_v2\n)R."}) {
    EXPECT_NE(pickle_refusal(program), "accepted") << program;
  }
  EXPECT_EQ(pickle_refusal("}."), "accepted");
  EXPECT_THAT(pickle_refusal("}" + test::pickle_text("model") + "}s."), HasSubstr("is no tensor"));
}

TEST(StateDictPickle, BoundsWhatAProgramMayMake) {
  const size_t many = 600'000;
  EXPECT_THAT(pickle_refusal(std::string(many, 'N')), HasSubstr("too many values"));
  EXPECT_THAT(pickle_refusal(std::string(many, '(')), HasSubstr("too many marks"));
  std::string recalls = std::string("}q") + '\0';
  for (size_t i = 0; i < many; ++i) recalls += std::string("h") + '\0';
  EXPECT_THAT(pickle_refusal(recalls), HasSubstr("too many values"));
}

// A text is written once and named as often as two bytes allow.
TEST(StateDictPickle, AllocatesNoTextForEachTimeItIsRecalled) {
  const std::string text = test::pickle_text(std::string(4000, 'x'));
  const std::string remember = std::string("q") + '\0', recall = std::string("h") + '\0';
  const std::string rebuild = "ctorch._utils\n_rebuild_tensor_v2\n";
  const auto storage = [&](const std::string& key) {
    return "(" + test::pickle_text("storage") + "ctorch\nFloatStorage\n" + key +
           test::pickle_text("cpu") + test::pickle_integer(6) + "tQ";
  };
  std::string items = "](" + text + remember, keys = "}" + text + remember;
  std::string names = "}" + text + remember + rebuild + "(" + storage(test::pickle_text("0")) +
                      test::pickle_integer(0) + "))tRq\1s(";
  for (int i = 0; i < 50'000; ++i) {
    names += recall + "h\1";
    items += recall;
    if (i < 5'000) keys += storage(recall);
  }
  const auto bounded = [](const std::string& program, const auto& read) {
    const test::AllocationPeak peak;
    try {
      read(program);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::corrupt);
      EXPECT_THAT(error.what(), AnyOf(HasSubstr("names that repeat"), HasSubstr("long name")));
    }
    EXPECT_LT(peak.bytes(), 40 << 20);
  };
  const auto tensors = [](const std::string& p) { read_state_dict_pickle(p, "x"); };
  bounded(names + "u.", tensors);
  bounded(keys + "u.", tensors);
  bounded(items + "e.", [](const std::string& p) {
    size_t used = 0;
    read_pickled_texts(p, "x", &used);
  });
}

TEST(TorchFile, RefusesZipsThatTorchWouldNotWrite) {
  const test::ZipContent content = {{"archive/data.pkl", make_pickle({plain()})},
                                    {"archive/data/0", six_floats()}};
  EXPECT_EQ(refusal(make_zip(content)), "accepted");
  EXPECT_THAT(refusal(make_zip(content, {.method = 8})), HasSubstr("is compressed"));
  EXPECT_THAT(refusal(make_zip(content, {.flags = 1})), HasSubstr("is encrypted"));
  EXPECT_THAT(refusal(make_zip({{"archive/data/0", "x"}})), HasSubstr("without data.pkl"));
  EXPECT_THAT(refusal(make_zip({content[0], content[0]})), HasSubstr("is there twice"));
  EXPECT_THAT(refusal("not a zip at all"), HasSubstr("not a PyTorch file"));
  test::ZipContent big = content;
  big.emplace_back("archive/byteorder", "big");
  EXPECT_THAT(refusal(make_zip(big)), HasSubstr("big-endian"));
  // Both directory entries lead to one local entry.
  std::string overlapping = make_zip(content);
  const size_t second = overlapping.rfind("PK\1\2");
  overlapping.replace(second + 42, 4, test::little(0, 4));
  EXPECT_THAT(refusal(overlapping), HasSubstr("overlap"));
}

}  // namespace
}  // namespace sw
