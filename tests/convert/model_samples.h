// Small models as checkpoints and as folders, and what is needed to spoil them.
#pragma once

#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "libswitch/base/rng.h"
#include "libswitch/convert/conversion.h"
#include "libswitch/io/json_text.h"
#include "libswitch/io/safetensors.h"
#include "libswitch/io/weights_folder.h"
#include "libswitch/nn/model_options.h"
#include "tests/io/checkpoint_samples.h"

namespace sw::test {

inline ModelConfig small_switch() {
  ModelConfig config;
  config.conventions = conventions_preset("hf");
  config.vocab_size = 24, config.d_model = 8, config.d_kv = 3, config.heads = 2, config.d_ff = 10;
  config.encoder_layers = 4, config.decoder_layers = 3;
  config.experts = 3;
  config.relative_buckets = 8, config.relative_max_distance = 20;
  config.expert_capacity = 7, config.output_z_loss = 0, config.init_scale = 1;
  return config;
}
inline ModelConfig small_t5() {
  ModelConfig config = small_switch();
  config.experts = 0, config.expert_capacity = 64, config.jitter = 0;
  config.encoder_sparse_step = config.encoder_sparse_offset = 0;
  config.decoder_sparse_step = config.decoder_sparse_offset = 0;
  return config;
}

/// A checkpoint of `config` with random bits as weights, in the dtype that `dtype_of` gives.
inline void write_model(const std::filesystem::path& file, const ModelConfig& config,
                        const std::function<DType(const std::string&)>& dtype_of = {},
                        const std::string& conventions_toml = {}) {
  std::vector<TensorEntry> entries;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    entries.push_back({"/model/" + spec.name, dtype_of ? dtype_of(spec.name) : DType::f32,
                       spec.shape, spec.axes});
  }
  CheckpointMeta meta;
  meta.config_toml = conventions_toml.empty() ? model_config_to_toml(config) : conventions_toml;
  CheckpointWriter writer(file, entries, meta, Telemetry());
  RngStream stream(rng_key(5, RngPurpose::test));
  for (const TensorEntry& entry : entries) {
    Tensor tensor = Tensor::empty(entry.shape, entry.dtype);
    auto* bytes = static_cast<unsigned char*>(tensor.raw());
    for (int64_t i = 0; i < tensor.bytes(); ++i) {
      bytes[i] = static_cast<unsigned char>(stream.below(256));
    }
    writer.write_tensor(entry.path, tensor);
  }
  writer.finish();
}

/// A folder's tensors as bytes, to be changed and written again.
struct LooseTensor {
  ElementType type = ElementType::f32;
  Shape shape;
  std::string bytes;
};
using LooseTensors = std::map<std::string, LooseTensor>;

inline LooseTensors load_tensors(const std::filesystem::path& folder) {
  const auto archive = open_weights(folder);
  LooseTensors out;
  for (size_t i = 0; i < archive->tensors().size(); ++i) {
    const ArchiveTensor& tensor = archive->tensors()[i];
    LooseTensor loose{tensor.type, tensor.shape,
                      std::string(static_cast<size_t>(tensor.bytes()), '\0')};
    archive->read_rows(i, 0, tensor.rows(), loose.bytes.data());
    out[tensor.name] = std::move(loose);
  }
  return out;
}

inline void save_tensors(const std::filesystem::path& folder, const LooseTensors& tensors) {
  std::vector<ArchiveTensor> entries;
  for (const auto& [name, tensor] : tensors)
    entries.push_back({name, tensor.type, tensor.shape, 0});
  SafetensorsWriter writer(folder / "model.safetensors", entries, {{"format", "pt"}});
  for (const auto& [name, tensor] : tensors) {
    writer.write(name, 0, tensor.bytes.data(), static_cast<int64_t>(tensor.bytes.size()));
  }
  writer.commit();
}

/// Changes keys of a folder's config.json; null takes a key away.
inline void edit_config(const std::filesystem::path& folder, const nlohmann::json& changes) {
  nlohmann::json config = read_json_file(folder / "config.json");
  config.merge_patch(changes);
  std::ofstream(folder / "config.json") << config.dump(2);
}

}  // namespace sw::test
