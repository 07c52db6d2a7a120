#include "libswitch/generate/checkpoint_experts.h"

#include <algorithm>
#include <unordered_map>

#include "libswitch/base/error.h"

namespace sw {
namespace {

void check_shape(const CheckpointReader& reader, const std::string& path, const Shape& shape) {
  SW_CHECK(reader.contains(path), corrupt, "{}: holds no {}, which the model needs",
           reader.path().string(), path);
  const TensorEntry& entry = reader.entry(path);
  SW_CHECK(entry.shape == shape, corrupt, "{}: {}: expected shape {}, got {}",
           reader.path().string(), path, shape.str(), entry.shape.str());
}

Tensor converted(Tensor tensor, DType dtype) {
  return tensor.dtype() == dtype ? tensor : tensor.to(dtype);
}

}  // namespace

DecodingWeights read_decoding_weights(const CheckpointReader& reader, const ModelConfig& config,
                                      DType compute) {
  std::unordered_map<std::string, ParameterSpec> specs;
  for (ParameterSpec& spec : parameter_specs(config)) {
    const std::string name = spec.name;
    check_shape(reader, "/model/" + name, spec.shape);
    specs.emplace(name, std::move(spec));
  }
  return collect_weights(config, [&](const std::string& name) {
    const DType dtype = specs.at(name).master_only ? DType::f32 : compute;
    return converted(reader.read("/model/" + name), dtype);
  });
}

CheckpointExperts::CheckpointExperts(const CheckpointReader& reader, const ModelConfig& config,
                                     DType compute, int64_t max_bytes)
    : reader_(reader),
      compute_(compute),
      max_bytes_(max_bytes),
      wi_shape_{config.d_model, config.d_ff},
      wo_shape_{config.d_ff, config.d_model},
      gated_(is_gated(config.activation)),
      experts_(config.experts) {
  for (const std::string& prefix : sparse_layer_prefixes(config)) {
    layers_.push_back("/model/" + prefix);
  }
  expert_bytes_ = (gated_ ? 3 : 2) * wi_shape_.elements() * element_bytes(compute);
  use_.experts = experts_ * static_cast<int64_t>(layers_.size());
  encoder_layers_ = sparse_encoder_layers(config);
  seen_.assign(static_cast<size_t>(use_.experts), 0);
}

int64_t CheckpointExperts::at_once() const {
  return std::max<int64_t>(1, max_bytes_ / std::max<int64_t>(expert_bytes_, 1));
}

Tensor CheckpointExperts::read(const std::string& path, int64_t expert, const Shape& shape) {
  Tensor tensor = reader_.read_rows(path, expert, expert + 1);
  use_.bytes_read += tensor.bytes();
  return converted(tensor.view(shape), compute_);
}

ExpertWeights CheckpointExperts::expert(int64_t layer, int64_t expert) {
  const Key key{layer, expert};
  ++use_.asked;
  if (const auto found = kept_.find(key); found != kept_.end()) {
    order_.splice(order_.begin(), order_, found->second.place);
    return found->second.weights;
  }
  char& seen = seen_[static_cast<size_t>(layer * experts_ + expert)];
  if (seen == 0) ++use_.used;
  seen = 1;
  ++use_.read;
  while (!order_.empty() && use_.bytes_kept + expert_bytes_ > max_bytes_) {
    kept_.erase(order_.back());
    order_.pop_back();
    use_.bytes_kept -= expert_bytes_;
  }
  const std::string& prefix = layers_[static_cast<size_t>(layer)];
  ExpertWeights weights;
  weights.wi = read(prefix + (gated_ ? "wi_0" : "wi"), expert, wi_shape_);
  if (gated_) weights.gate = read(prefix + "wi_1", expert, wi_shape_);
  weights.wo = read(prefix + "wo", expert, wo_shape_);
  if (layer >= encoder_layers_) weights = packed_expert(weights);
  order_.push_front(key);
  kept_[key] = {weights, order_.begin()};
  use_.bytes_kept += expert_bytes_;
  return weights;
}

}  // namespace sw
