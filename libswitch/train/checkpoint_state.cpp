#include "libswitch/train/checkpoint_state.h"

#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

std::string weight_path(const Parameter& parameter) { return "/model/" + parameter.name(); }

void read_into(const CheckpointReader& reader, const std::string& path, Tensor& tensor) {
  SW_CHECK(reader.contains(path), corrupt, "{}: holds no {}, which the model needs",
           reader.path().string(), path);
  const TensorEntry& entry = reader.entry(path);
  SW_CHECK(entry.shape == tensor.shape(), corrupt, "{}: {}: expected shape {}, got {}",
           reader.path().string(), path, tensor.shape().str(), entry.shape.str());
  if (entry.dtype == tensor.dtype() && tensor.rank() > 0) {
    reader.read_rows_into(path, 0, tensor.size(0), tensor.raw(), tensor.bytes());
  } else {
    const Tensor converted = reader.read(path).to(tensor.dtype());
    std::memcpy(tensor.raw(), converted.raw(), static_cast<size_t>(tensor.bytes()));
  }
}

}  // namespace

std::vector<TensorEntry> checkpoint_entries(const Model& model, const Optimizer& optimizer) {
  std::vector<TensorEntry> entries;
  for (const auto& parameter : model.parameters()) {
    entries.push_back({weight_path(*parameter), parameter->master().dtype(),
                       parameter->spec().shape, parameter->spec().axes});
  }
  for (const OptimizerState& state : optimizer.states()) {
    entries.push_back({state.path, state.tensor.dtype(), state.tensor.shape(), state.axes});
  }
  return entries;
}

CommittedCheckpoint write_checkpoint(const std::filesystem::path& file, const Model& model,
                                     const Optimizer& optimizer, CheckpointMeta meta,
                                     const Telemetry& telemetry, FileCalls calls) {
  const ParameterCount count = count_parameters(model.config());
  meta.params_total = count.total;
  meta.params_active = count.active;
  CheckpointWriter writer(file, checkpoint_entries(model, optimizer), meta, telemetry,
                          std::move(calls));
  for (const auto& parameter : model.parameters()) {
    writer.write_tensor(weight_path(*parameter), parameter->master());
  }
  for (const OptimizerState& state : optimizer.states()) {
    writer.write_tensor(state.path, state.tensor);
  }
  return writer.finish();
}

void read_weights(const CheckpointReader& reader, Model& model) {
  for (auto& parameter : model.parameters()) {
    read_into(reader, weight_path(*parameter), parameter->master());
    parameter->refresh(Stream{parameter->master().device()});
  }
  for (const TensorEntry& entry : reader.entries()) {
    if (!entry.path.starts_with("/model/")) continue;
    SW_CHECK(model.find(entry.path.substr(7)) != nullptr, corrupt,
             "{}: holds {}, which the model of its configuration has not", reader.path().string(),
             entry.path);
  }
}

void read_optimizer(const CheckpointReader& reader, Optimizer& optimizer) {
  for (const OptimizerState& state : optimizer.states()) {
    Tensor tensor = state.tensor;
    read_into(reader, state.path, tensor);
  }
}

std::unique_ptr<Model> load_model(const CheckpointReader& reader, std::optional<DType> compute) {
  const CheckpointMeta& meta = reader.meta();
  const std::string name = reader.path().string() + ": /meta/config.toml";
  const ModelConfig config = model_config_from_toml(meta.config_toml, name);
  DType dtype = DType::f32;
  if (compute) {
    dtype = *compute;
  } else if (const auto it = meta.attributes.find("compute_dtype"); it != meta.attributes.end()) {
    const auto* text = std::get_if<std::string>(&it->second);
    if (text != nullptr && *text == "bf16") dtype = DType::bf16;
  }
  auto model = std::make_unique<Model>(config, dtype);
  read_weights(reader, *model);
  return model;
}

}  // namespace sw
