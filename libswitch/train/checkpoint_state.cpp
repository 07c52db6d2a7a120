#include "libswitch/train/checkpoint_state.h"

#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/comm/agree.h"
#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

std::string weight_path(const Parameter& parameter) { return "/model/" + parameter.name(); }

// The stored tensor must be the one wanted.
void check_entry(const CheckpointReader& reader, const std::string& path, const Shape& shape) {
  SW_CHECK(reader.contains(path), corrupt, "{}: holds no {}, which the model needs",
           reader.path().string(), path);
  const Shape& stored = reader.entry(path).shape;
  SW_CHECK(stored == shape, corrupt, "{}: {}: expected shape {}, got {}", reader.path().string(),
           path, shape.str(), stored.str());
}

void read_into(const CheckpointReader& reader, const std::string& path, const Rectangle& box,
               Tensor& tensor) {
  const DType stored = reader.entry(path).dtype;
  if (stored == tensor.dtype()) {
    reader.read_rectangle(path, box, tensor.raw(), tensor.bytes());
    return;
  }
  Tensor part = Tensor::empty(tensor.shape(), stored);
  reader.read_rectangle(path, box, part.raw(), part.bytes());
  const Tensor converted = part.to(tensor.dtype());
  std::memcpy(tensor.raw(), converted.raw(), static_cast<size_t>(tensor.bytes()));
}

}  // namespace

void read_weights(const CheckpointReader& reader, Model& model) {
  agree_on(model.mesh().world(), [&] {
    for (const auto& parameter : model.parameters()) {
      check_entry(reader, weight_path(*parameter), parameter->spec().shape);
    }
    for (const TensorEntry& entry : reader.entries()) {
      if (!entry.path.starts_with("/model/")) continue;
      SW_CHECK(model.find(entry.path.substr(7)) != nullptr, corrupt,
               "{}: holds {}, which the model of its configuration has not", reader.path().string(),
               entry.path);
    }
    for (auto& parameter : model.parameters()) {
      Tensor& master = parameter->master();
      read_into(reader, weight_path(*parameter), parameter->rectangle(), master);
      parameter->refresh(Stream{master.device()});
    }
  });
}

void read_optimizer(const CheckpointReader& reader, Optimizer& optimizer) {
  agree_on(optimizer.model().mesh().world(), [&] {
    for (const OptimizerState& state : optimizer.states()) {
      check_entry(reader, state.path, state.shape);
    }
    for (const OptimizerState& state : optimizer.states()) {
      Tensor tensor = state.tensor;
      if (tensor.defined()) read_into(reader, state.path, state.rectangle, tensor);
    }
  });
}

ModelConfig model_config(const CheckpointReader& reader) {
  return model_config_from_toml(reader.meta().config_toml,
                                reader.path().string() + ": /meta/config.toml");
}

DType trained_dtype(const CheckpointReader& reader) {
  const auto& attributes = reader.meta().attributes;
  const auto it = attributes.find("compute_dtype");
  if (it == attributes.end()) return DType::f32;
  const auto* text = std::get_if<std::string>(&it->second);
  return text != nullptr && *text == "bf16" ? DType::bf16 : DType::f32;
}

std::unique_ptr<Model> load_model(const CheckpointReader& reader, std::optional<DType> compute,
                                  const Mesh& mesh) {
  auto model = std::make_unique<Model>(model_config(reader),
                                       compute.value_or(trained_dtype(reader)), Device{}, mesh);
  read_weights(reader, *model);
  return model;
}

}  // namespace sw
