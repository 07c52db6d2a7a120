#include "libswitch/train/estimate.h"

#include <algorithm>

#include "libswitch/tape/placement.h"
#include "libswitch/train/optimizer_owners.h"
#include "libswitch/train/step_memory.h"

namespace sw {
namespace {

// Of a process before its first tensor, by measurement: libraries, buffers of the data and of the
// checkpoint's writer, generated code of matrix products, more of it in reduced precision.
constexpr int64_t kProcessBytes = 46 << 20, kReducedPrecisionBytes = 8 << 20;

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

  const std::vector<ParameterSpec> parameters = parameter_specs(model);
  for (const ParameterSpec& spec : parameters) {
    const int64_t part = part_elements(spec.shape, spec.axes, mesh);
    out.weight_bytes += part * master;
    if (value != master && !spec.master_only) out.weight_bytes += part * value;
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

  const StepMemory step = estimate_step_memory(shape);
  out.gradient_bytes = step.gradient_bytes;
  out.activation_bytes =
      std::max({step.peak_bytes - step.gradient_bytes, shape.evaluation_bytes, int64_t{0}});
  out.data_bytes = shape.data_bytes;
  // A save in the background writes from a copy.
  if (shape.background_saves) out.copy_bytes = out.weight_bytes + out.optimizer_bytes;
  out.process_bytes = kProcessBytes + (value != master ? kReducedPrecisionBytes : 0);

  constexpr int64_t kPerTensor = 4096, kRest = 256 << 10;
  out.checkpoint_bytes = file_bytes + tensors * kPerTensor + kRest;
  out.checkpoint_part_bytes = written.most();
  out.step_flops = training_flops(model, shape.rows, shape.input_length, shape.target_length);
  for (const ModelConfig& frozen : shape.frozen) {
    for (const ParameterSpec& spec : parameter_specs(frozen)) {
      const int64_t part = part_elements(spec.shape, spec.axes, mesh);
      out.weight_bytes += part * master;
      if (value != master && !spec.master_only) out.weight_bytes += part * value;
    }
    out.step_flops +=
        training_flops(frozen, shape.rows, shape.input_length, shape.target_length) / 3;
  }
  return out;
}

}  // namespace sw
