// Writes the first inputs of the fuzz targets whose inputs are binary. What is text lies in
// corpus/.
//
//   make_seeds FOLDER      makes FOLDER/shard, FOLDER/shard_repair, FOLDER/checkpoint,
//                          FOLDER/sentencepiece
#include <cstring>

#include "tests/data/data_test_support.h"

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const fs::path folder = argv[1];
  make_shards(folder / "shard");
  make_shards(folder / "shard_repair");
  make_edits(folder / "checkpoint");
  make_models(folder / "sentencepiece");
  return 0;
}
