#include "libswitch/train/estimate.h"

#include <bit>

namespace sw {
namespace {

// Values an op keeps per position, by sublayer, in elements of the compute type.
double attention_values(const ModelConfig& c) {
  // residual, normed input, output; queries, keys, values, mixed values
  return 3.0 * static_cast<double>(c.d_model) + 4.0 * static_cast<double>(c.inner());
}
double feed_forward_values(const ModelConfig& c, bool sparse) {
  const double d = static_cast<double>(c.d_model), f = static_cast<double>(c.d_ff);
  const double hidden = c.activation == Activation::geglu ? 3 * f : f;
  if (!sparse) return 3 * d + hidden;
  // Dispatched rows in and out, and the router's probabilities.
  const double choices = c.router == "top2" ? 2 : 1;
  return 3 * d + choices * (hidden + 2 * d) + 2.0 * static_cast<double>(c.experts);
}

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
  int64_t checkpoint_tensors = 0;
  for (const ParameterSpec& spec : parameter_specs(model)) {
    out.weight_bytes += spec.elements() * master;
    if (value != master && !spec.master_only) out.weight_bytes += spec.elements() * value;
    ++checkpoint_tensors;
  }
  for (const OptimizerStateSpec& state : optimizer_state_specs(shape.optimizer, model)) {
    out.optimizer_bytes += state.shape.elements() * master;
    ++checkpoint_tensors;
  }
  const auto ranks = static_cast<uint64_t>(shape.step.canonical_ranks);
  out.gradient_bytes = out.parameters.total * master * std::bit_width(ranks);

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
    add_block(inputs * (attention_values(model) +
                        feed_forward_values(model, model.encoder_layer_is_sparse(i))),
              2 * inputs * d);
  }
  for (int64_t i = 0; i < model.decoder_layers; ++i) {
    const double cross_keys = 2.0 * inputs * static_cast<double>(model.inner());
    add_block(targets * (2 * attention_values(model) +
                         feed_forward_values(model, model.decoder_layer_is_sparse(i))) +
                  cross_keys,
              2 * targets * d);
  }
  if (shape.step.recompute != Recompute::none) values += largest;
  values += 4 * (inputs + targets) * d;  // embeddings, final norms and their gradients
  out.activation_bytes = static_cast<int64_t>(values * static_cast<double>(value));

  constexpr int64_t kPerTensor = 4096, kRest = 256 << 10;
  out.checkpoint_bytes =
      out.parameters.total * master + out.optimizer_bytes + checkpoint_tensors * kPerTensor + kRest;
  out.step_flops = training_flops(model, shape.rows, shape.input_length, shape.target_length);
  return out;
}

}  // namespace sw
