// Writes the first inputs of the fuzz targets whose inputs are binary. What is text lies in
// corpus/.
//
//   make_seeds FOLDER      makes FOLDER/shard, FOLDER/shard_repair, FOLDER/checkpoint,
//                          FOLDER/sentencepiece, FOLDER/safetensors, FOLDER/torch_file
#include <cstring>

#include "libswitch/io/safetensors.h"
#include "tests/data/data_test_support.h"
#include "tests/io/torch_samples.h"

namespace {

namespace fs = std::filesystem;
using namespace sw;
using namespace sw::testing;

void put(const fs::path& folder, const std::string& name, const std::string& bytes) {
  fs::create_directories(folder);
  std::ofstream(folder / name, std::ios::binary) << bytes;
}

void make_shards(const fs::path& folder) {
  const ShardHeader narrow = plain_header(500, 8);
  const ShardHeader wide = plain_header(70000, 16);
  const std::string small = shard_bytes(random_documents(3, 9, 500, 1), narrow);
  put(folder, "narrow", small);
  put(folder, "wide", shard_bytes(random_documents(4, 20, 70000, 2), wide));
  put(folder, "empty", shard_bytes({}, narrow));
  put(folder, "two-segments", small + shard_bytes(random_documents(2, 9, 500, 3), narrow));
  put(folder, "long-document", shard_bytes(random_documents(1, 60, 500, 4), narrow));
  put(folder, "cut", small.substr(0, small.size() - 40));
}

// One edit of each kind at each of the first datasets (checkpoint_fuzz.cpp has the layout).
void make_edits(const fs::path& folder) {
  put(folder, "none", "");
  put(folder, "seal-left", "x");
  for (int region = 0; region < 48; ++region) {
    std::string edits;
    for (char change = 0; change < 4; ++change) {
      const char edit[12] = {static_cast<char>(region),
                             change,
                             static_cast<char>(3 * change),
                             0,
                             1,
                             0,
                             0,
                             0,
                             0,
                             0,
                             0,
                             0};
      if (change % 2 == region % 2) edits.append(edit, sizeof edit);
    }
    put(folder, "region-" + std::to_string(region), edits);
  }
}

void make_models(const fs::path& folder) {
  const fs::path text = folder / "text";
  for (const char* type : {"unigram", "bpe"}) {
    put(folder, "text", nonsense_text(200, 1));
    TextSource source({text}, {});
    VocabularyOptions options;
    options.pieces = 60;
    options.model_type = type;
    const std::string model = train_vocabulary(source, options).model;
    put(folder, type, model);
    put(folder, std::string(type) + "-head", model.substr(0, 400));
  }
  fs::remove(text);
}

void make_safetensors(const fs::path& folder) {
  put(folder, "index",
      R"(i{"metadata":{"total_size":8},"weight_map":{"a":"x-00001-of-00002.safetensors"}})");
  const fs::path file = folder / "file";
  SafetensorsWriter writer(
      file,
      {{"shared.weight", ElementType::f32, Shape{2, 3}, 0},
       {"encoder.block.0.layer.1.mlp.experts.expert_1.wi.weight", ElementType::bf16, Shape{4}, 0},
       {"scalar", ElementType::f16, Shape{}, 0},
       {"empty", ElementType::i64, Shape{0, 5}, 0}},
      {{"format", "pt"}});
  const std::string zeros(24, '\0');
  writer.write("shared.weight", 0, zeros.data(), 24);
  writer.write("encoder.block.0.layer.1.mlp.experts.expert_1.wi.weight", 0, zeros.data(), 8);
  writer.write("scalar", 0, zeros.data(), 2);
  writer.commit();
  const std::string bytes = "s" + read_file(file);
  fs::remove(file);
  put(folder, "tensors", bytes);
  put(folder, "cut", bytes.substr(0, bytes.size() - 9));
  put(folder, "nothing", std::string("s\2\0\0\0\0\0\0\0{}", 11));
}

void make_torch_files(const fs::path& folder) {
  const std::vector<test::PickleTensor> tensors = {
      {"w", "FloatStorage", "0", 6, 0, {2, 3}, {3, 1}},
      {"t", "FloatStorage", "0", 6, 1, {2, 2}, {1, 3}},
      {"h", "HalfStorage", "1", 2, 0, {}, {}},
      {"e", "BFloat16Storage", "1", 2, 0, {0, 4}, {4, 1}}};
  const std::string file =
      test::make_torch_file(tensors, {{"0", std::string(24, 'x')}, {"1", std::string(4, 'y')}});
  put(folder, "file", "z" + file);
  put(folder, "wide",
      "z" + test::make_torch_file(tensors,
                                  {{"0", std::string(24, 'x')}, {"1", std::string(4, 'y')}},
                                  {.wide = true}));
  put(folder, "legacy",
      "z" + test::make_legacy_torch_file({tensors[0], tensors[1]}, {{"0", std::string(24, 'x')}}));
  put(folder, "compressed", "z" + test::make_zip({{"archive/data.pkl", "x"}}, {.method = 8}));
  put(folder, "pickle", "p" + test::make_pickle(tensors));
  put(folder, "saved", "z" + read_file(SW_SOURCE_DIR "/tests/golden/torch/state_dict.bin"));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const fs::path folder = argv[1];
  make_shards(folder / "shard");
  make_shards(folder / "shard_repair");
  make_edits(folder / "checkpoint");
  make_models(folder / "sentencepiece");
  make_safetensors(folder / "safetensors");
  make_torch_files(folder / "torch_file");
  return 0;
}
