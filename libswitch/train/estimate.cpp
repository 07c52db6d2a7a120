#include "libswitch/train/estimate.h"

#include <algorithm>
#include <bit>

#include "libswitch/tape/placement.h"
#include "libswitch/train/optimizer_owners.h"

namespace sw {
namespace {

// Values an op keeps per position, by sublayer, in elements of the compute type.
double attention_values(const ModelConfig& c, const MeshShape& mesh) {
  // residual, normed input, output; queries, keys, values, mixed values
  return 3.0 * static_cast<double>(c.d_model) +
         4.0 * static_cast<double>(c.inner()) / static_cast<double>(mesh.model);
}
double feed_forward_values(const ModelConfig& c, const MeshShape& mesh, bool sparse) {
  const double d = static_cast<double>(c.d_model);
  const double f = static_cast<double>(c.d_ff) / static_cast<double>(mesh.model);
  const double hidden = c.activation == Activation::geglu ? 3 * f : f;
  if (!sparse) return 3 * d + hidden;
  // Dispatched rows in and out, and the router's probabilities.
  const double choices = c.router == "top2" ? 2 : 1;
  return 3 * d + choices * (hidden + 2 * d) + 2.0 * static_cast<double>(c.experts);
}

// What a rank of the mesh holds of a tensor.
int64_t part_elements(const Shape& shape, const std::vector<std::string>& axes,
                      const MeshShape& mesh) {
  const Placement placement = placement_of(axes);
  int64_t elements = shape.elements();
  if (placement.expert_dimension >= 0) elements /= mesh.expert;
  if (placement.model_dimension >= 0) elements /= mesh.model;
  return elements;
}

// Bytes by data rank, of the model ranks the first, which writes what the model axis does not cut.
class BytesByRank {
 public:
  explicit BytesByRank(const MeshShape& mesh) : bytes_(static_cast<size_t>(mesh.data)) {}
  void add(int64_t first, int64_t ranks, int64_t bytes) {
    for (int64_t r = first; r < first + ranks; ++r) bytes_[static_cast<size_t>(r)] += bytes;
  }
  int64_t most() const { return *std::max_element(bytes_.begin(), bytes_.end()); }

 private:
  std::vector<int64_t> bytes_;
};

}  // namespace

double training_flops(const ModelConfig& model, int64_t rows, int64_t input_length,
                      int64_t target_length) {
  return 3 * static_cast<double>(rows) * forward_flops(model, input_length, target_length);
}

TrainingEstimate estimate_training(const TrainingShape& shape) {
  TrainingEstimate out;
  const ModelConfig& model = shape.model;
  out.parameters = count_parameters(model);
  const int64_t master = element_bytes(master_dtype(shape.compute));
  const int64_t value = element_bytes(shape.compute);
  const MeshShape& mesh = out.mesh = shape.mesh;
  BytesByRank written(mesh), held(mesh);
  int64_t file_bytes = 0, tensors = 0;

  const auto shards = static_cast<uint64_t>(shape.step.canonical_ranks / mesh.data);
  const std::vector<ParameterSpec> parameters = parameter_specs(model);
  for (const ParameterSpec& spec : parameters) {
    const int64_t part = part_elements(spec.shape, spec.axes, mesh);
    out.weight_bytes += part * master;
    if (value != master && !spec.master_only) out.weight_bytes += part * value;
    // Between ranks gradients travel in a copy.
    const int64_t group = spec.expert() ? mesh.replicas() : mesh.data;
    out.gradient_bytes += part * master * (std::bit_width(shards) + (group > 1 ? 1 : 0));
    written.add(0, spec.expert() ? mesh.expert : 1, part * master);
    file_bytes += spec.elements() * master;
    ++tensors;
  }
  const bool shard = shape.optimizer.shard && mesh.data > 1;
  std::vector<int64_t> owners(parameters.size());
  if (shard) owners = assign_owners(parameters, mesh);
  for (const OptimizerStateSpec& state : optimizer_state_specs(shape.optimizer, model)) {
    const int64_t bytes = part_elements(state.shape, state.axes, mesh) * master;
    const int64_t width = parameters[state.parameter].expert() ? mesh.expert : 1;
    const int64_t first = owners[state.parameter] * width;
    const bool by_expert = placement_of(state.axes).expert_dimension >= 0;
    written.add(first, by_expert ? width : 1, bytes);
    held.add(shard ? first : 0, shard ? width : mesh.data, bytes);
    file_bytes += state.shape.elements() * master;
    ++tensors;
  }
  out.optimizer_bytes = held.most();

  const int64_t rows = shape.rows / (shape.step.canonical_ranks * shape.step.accumulate);
  const auto inputs = static_cast<double>(rows * shape.input_length);
  const auto targets = static_cast<double>(rows * shape.target_length);
  double values = 0, largest = 0;
  const auto add_block = [&](double block, double kept) {
    values += shape.step.recompute == Recompute::none    ? block
              : shape.step.recompute == Recompute::layer ? 2 * kept
                                                         : kept;
    largest = std::max(largest, block);
  };
  const double d = static_cast<double>(model.d_model);
  for (int64_t i = 0; i < model.encoder_layers; ++i) {
    add_block(inputs * (attention_values(model, mesh) +
                        feed_forward_values(model, mesh, model.encoder_layer_is_sparse(i))),
              2 * inputs * d);
  }
  for (int64_t i = 0; i < model.decoder_layers; ++i) {
    const double cross_keys =
        2.0 * inputs * static_cast<double>(model.inner()) / static_cast<double>(mesh.model);
    add_block(targets * (2 * attention_values(model, mesh) +
                         feed_forward_values(model, mesh, model.decoder_layer_is_sparse(i))) +
                  cross_keys,
              2 * targets * d);
  }
  if (shape.step.recompute != Recompute::none) values += largest;
  values += 4 * (inputs + targets) * d;  // embeddings, final norms and their gradients
  out.activation_bytes = static_cast<int64_t>(values * static_cast<double>(value));

  constexpr int64_t kPerTensor = 4096, kRest = 256 << 10;
  out.checkpoint_bytes = file_bytes + tensors * kPerTensor + kRest;
  out.checkpoint_part_bytes = written.most();
  out.step_flops = training_flops(model, shape.rows, shape.input_length, shape.target_length);
  return out;
}

}  // namespace sw
