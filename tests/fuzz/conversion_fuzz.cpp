// Hugging Face folders as sw-convert reads them. An input is text: lines "--- NAME" and after each
// the file of that name; of *.safetensors only the header's JSON, since the target adds its length
// and as many bytes of data as it claims. They are zeros where the input begins with 'z', so that
// every tensor is a copy of every other of its shape.
#include <fstream>
#include <set>

#include "libswitch/convert/import_plan.h"
#include "libswitch/convert/model_files.h"
#include "libswitch/io/json_text.h"
#include "libswitch/io/weights_folder.h"
#include "libswitch/nn/model_options.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using namespace sw;
namespace fs = std::filesystem;

constexpr uint64_t kMaxData = 1 << 20;

// The furthest end of a tensor that the header claims.
uint64_t data_bytes(const std::string& header) {
  const auto json = nlohmann::json::parse(header, nullptr, /*allow_exceptions=*/false);
  uint64_t bytes = 0;
  if (!json.is_object()) return 0;
  for (const auto& [name, tensor] : json.items()) {
    if (!tensor.is_object() || !tensor.contains("data_offsets")) continue;
    const auto& offsets = tensor["data_offsets"];
    if (offsets.is_array() && offsets.size() == 2 && offsets[1].is_number_unsigned()) {
      bytes = std::max(bytes, offsets[1].get<uint64_t>());
    }
  }
  return std::min(bytes, kMaxData);
}

std::string safetensors_file(const std::string& header, bool zeros) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  file += header;
  const size_t begin = file.size();
  file.resize(begin + data_bytes(header));
  for (size_t i = begin; !zeros && i < file.size(); ++i) file[i] = static_cast<char>(i % 61);
  return file;
}

const std::set<std::string_view>& names() {
  static const std::set<std::string_view> known{
      "config.json",   "model.safetensors", "model.safetensors.index.json",
      "a.safetensors", "b.safetensors",     "generation_config.json",
      "spiece.model"};
  return known;
}

// Lays the files out in `folder`; returns their size.
size_t write_folder(std::string_view input, const fs::path& folder) {
  for (const std::string_view name : names()) ::unlink((folder / name).c_str());
  constexpr std::string_view kMark = "--- ";
  const bool zeros = input.starts_with('z');
  size_t bytes = 0;
  for (size_t at = input.find(kMark); at != input.npos;) {
    const size_t line = std::min(input.find('\n', at), input.size());
    const std::string_view name = input.substr(at + kMark.size(), line - at - kMark.size());
    const size_t begin = std::min(line + 1, input.size());
    at = input.find(kMark, begin);
    if (!names().contains(name)) continue;
    std::string content(input.substr(begin, at == input.npos ? at : at - begin));
    if (name.ends_with(".safetensors")) content = safetensors_file(content, zeros);
    std::ofstream(folder / name, std::ios::binary) << content;
    bytes += content.size();
  }
  return bytes;
}

// Every row of every tensor once, in order.
void stream_all(const ImportPlan& plan) {
  for (size_t i = 0; i < plan.entries().size(); ++i) {
    const TensorEntry& entry = plan.entries()[i];
    int64_t next = 0;
    plan.stream(i, [&](int64_t begin, int64_t end, const void*) {
      if (begin != next || end <= begin) fuzz::found(entry.path + ": rows out of order");
      next = end;
    });
    if (next != (entry.shape.rank() == 0 ? 1 : entry.shape[0])) {
      fuzz::found(entry.path + ": rows are missing");
    }
  }
}

// What the checkpoint says of its model, and the configuration that goes back, must be read again.
void check_configuration(const ImportPlan& plan, const nlohmann::json& original) {
  try {
    const ModelConfig again = model_config_from_toml(model_config_to_toml(plan.model()), "toml");
    if (count_parameters(again).total != count_parameters(plan.model()).total) {
      fuzz::found("the checkpoint would say another size");
    }
  } catch (const Error& error) {
    fuzz::found(std::string("no checkpoint could be opened: ") + error.what());
  }
  nlohmann::json back;
  try {
    back = write_hugging_face_config(plan.model(), plan.family(), original, "float32");
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage) throw;
    return;  // sparse layers that config.json cannot say
  }
  try {
    const HuggingFaceConfig again = read_hugging_face_config(back, "config.json");
    const ModelConfig &a = again.model, &b = plan.model();
    if (a.d_model != b.d_model || (b.experts > 0 && a.experts != b.experts) ||
        a.encoder_layers != b.encoder_layers || a.decoder_layers != b.decoder_layers ||
        a.activation != b.activation || a.tied_embeddings != b.tied_embeddings) {
      fuzz::found("config.json goes back as another model's");
    }
  } catch (const Error& error) {
    fuzz::found(std::string("config.json cannot be read back: ") + error.what());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw::fuzz;
  const fs::path& folder = quick_folder();
  const size_t bytes = write_folder({reinterpret_cast<const char*>(data), size}, folder);
  accepts(bytes, [&] {
    const nlohmann::json json = read_json_file(folder / "config.json");
    const HuggingFaceConfig config = read_hugging_face_config(json, "config.json");
    const auto archive = open_weights(folder);
    const ImportPlan plan(*archive, config, "config.json");
    CheckpointMeta meta;
    std::vector<std::string> notes;
    take_model_files(folder, plan.model().vocab_size, meta, notes);
    stream_all(plan);
    check_configuration(plan, original_config(meta));
  });
  return 0;
}
