// Writes the first inputs of the fuzz targets whose inputs are binary. What is text lies in
// corpus/.
//
//   make_seeds FOLDER      makes FOLDER/shard, FOLDER/shard_repair, FOLDER/checkpoint,
//                          FOLDER/sentencepiece, FOLDER/safetensors, FOLDER/torch_file,
//                          FOLDER/conversion, FOLDER/teacher_logits
#include <cstring>

#include "libswitch/convert/hugging_face_config.h"
#include "libswitch/io/safetensors.h"
#include "libswitch/train/teacher_logits.h"
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

// conversion_fuzz.cpp has the form of these.
void make_folders(const fs::path& folder) {
  ModelConfig model;
  model.conventions = conventions_preset("hf");
  model.vocab_size = 3, model.d_model = 2, model.d_kv = 1, model.heads = 2, model.d_ff = 2;
  model.relative_buckets = 4, model.relative_max_distance = 9;
  model.expert_capacity = 7;
  const auto header = [&](HfFamily family, const char* type, int part) {
    nlohmann::ordered_json json;
    int64_t end = 0, count = 0;
    for (const ParameterSpec& spec : parameter_specs(model)) {
      for (const HfTensor& tensor : hf_tensors(spec.name, family, model.experts)) {
        if (part >= 0 && ++count % 2 != part) continue;
        std::vector<int64_t> shape(spec.shape.begin() + (spec.expert() ? 1 : 0), spec.shape.end());
        if (tensor.transpose) std::swap(shape[0], shape[1]);
        int64_t bytes = std::string_view(type) == "F32" ? 4 : 2;
        for (const int64_t size : shape) bytes *= size;
        json[tensor.name] = {
            {"dtype", type}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
        end += bytes;
      }
    }
    return json;
  };
  const auto input = [&](HfFamily family, const char* type) {
    return "--- config.json\n" +
           write_hugging_face_config(model, family, nullptr, "float32").dump() +
           "\n--- model.safetensors\n" + header(family, type, -1).dump();
  };
  model.experts = 0, model.encoder_layers = model.decoder_layers = 1;
  model.encoder_sparse_step = model.encoder_sparse_offset = 0;
  model.decoder_sparse_step = model.decoder_sparse_offset = 0;
  put(folder, "t5", input(HfFamily::t5, "F32"));
  put(folder, "dense", input(HfFamily::switch_transformers, "F16"));
  model.activation = Activation::geglu, model.tied_embeddings = false;
  put(folder, "t5-gated", input(HfFamily::t5, "BF16"));
  model.activation = Activation::relu, model.tied_embeddings = true;
  model.experts = 2;
  model.encoder_sparse_step = model.decoder_sparse_step = 1;
  put(folder, "switch", input(HfFamily::switch_transformers, "F32"));
  put(folder, "switch-copies", "z" + input(HfFamily::switch_transformers, "BF16"));
  nlohmann::json map;
  std::string sharded =
      "--- config.json\n" +
      write_hugging_face_config(model, HfFamily::switch_transformers, nullptr, "float32").dump();
  for (const int part : {0, 1}) {
    const std::string file = part == 0 ? "a.safetensors" : "b.safetensors";
    const auto json = header(HfFamily::switch_transformers, "F32", part);
    for (const auto& item : json.items()) map[item.key()] = file;
    sharded += "\n--- " + file + "\n" + json.dump();
  }
  put(folder, "switch-sharded",
      sharded + "\n--- model.safetensors.index.json\n" +
          nlohmann::json{{"weight_map", map}}.dump());
}

// teacher_logits_fuzz.cpp has the form of these.
void make_teacher_logits(const fs::path& folder) {
  for (const auto& [positions, largest] : {std::pair<int64_t, int64_t>{2, 3}, {5, 1}}) {
    put(folder, "file", "");
    const std::string digest = "0123456789abcdef0123456789abcdef";
    const TeacherLogitsFile file(folder / "file", {positions, largest, 40, digest});
    kernels::TeacherLogits said;
    Tensor targets = Tensor::empty({2 * positions}, DType::i32);
    said.ids = Tensor::empty({2 * positions, largest}, DType::i32);
    said.logits = Tensor::empty({2 * positions, largest}, DType::f32);
    std::fill_n(targets.data<int32_t>(), targets.elements(), 7);
    for (int64_t i = 0; i < said.ids.elements(); ++i) {
      said.ids.data<int32_t>()[i] = static_cast<int32_t>(i) - 1;
      said.logits.data<float>()[i] = 1.5F - static_cast<float>(i);
    }
    file.write(0, targets, said);
    const std::string bytes = read_file(folder / "file");
    const std::string used = bytes.substr(0, 72) + bytes.substr(4096);
    const std::string name = fmt::format("{}-{}", positions, largest);
    put(folder, name + "-mended", '\7' + used);
    put(folder, name + "-as-it-is", '\0' + used);
    fs::remove(folder / "file");
  }
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
  make_folders(folder / "conversion");
  make_teacher_logits(folder / "teacher_logits");
  return 0;
}
