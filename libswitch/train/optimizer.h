// Optimizers over the parameters of a model: Adafactor (Shazeer & Stern 2018) and AdamW.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libswitch/nn/conventions.h"
#include "libswitch/nn/model.h"

namespace sw {

struct OptimizerConfig {
  enum class Kind { adafactor, adamw };
  Kind kind = Kind::adafactor;

  // Adafactor as in Mesh TensorFlow and T5X: no momentum, no weight decay.
  double decay_exponent = 0.8;      // beta2 = 1 - (step + 1)^-decay_exponent
  int64_t min_factored_size = 128;  // moments are factored iff both dimensions are at least this
  double clip_threshold = 1.0;      // of the update's rms
  double epsilon1 = 1e-30;          // added to g²
  double epsilon2 = 1e-3;           // floor of the weight's rms
  bool multiply_by_rms = true;      // the step is relative to the weight's rms

  /// Each parameter's state and update belong to one of the ranks that hold the same part of it,
  /// which then sends the weight to the others. The bits are the same.
  bool shard = false;

  // AdamW.
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;  // not of norms and relative biases
};

/// "adafactor", "adamw"; throws usage otherwise.
OptimizerConfig::Kind optimizer_kind(const std::string& name);
const char* optimizer_name(OptimizerConfig::Kind kind);

/// What is known of one tensor of optimizer state without allocating it.
struct OptimizerStateSpec {
  std::string path;  // "/optim/<parameter>/vr|vc|v|m"
  Shape shape;       // global
  std::vector<std::string> axes;
  size_t parameter = 0;  // index of its parameter
};
/// What make_optimizer would hold, in the order of the parameters.
std::vector<OptimizerStateSpec> optimizer_state_specs(const OptimizerConfig& config,
                                                      const ModelConfig& model);

/// One tensor of optimizer state, for the checkpoint.
struct OptimizerState {
  std::string path;
  std::vector<std::string> axes;
  Shape shape;          // global
  Rectangle rectangle;  // the part of it at this rank, by the labels of its axes
  DType dtype = DType::f32;
  bool writes = true;  // exactly one of the ranks with the same part writes it to a checkpoint
  Tensor tensor;  // the part, sharing memory with the optimizer; undefined where another rank keeps
                  // it
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Updates every parameter from its gradient times `gradient_scale`; a parameter without gradient
  /// counts as having a gradient of zero. `step` counts updates from 0. All ranks of the mesh call
  /// it, with gradients already summed over the ranks that hold the same part.
  void apply(double learning_rate, int64_t step, double gradient_scale = 1.0);
  /// All state in the order of the parameters.
  const std::vector<OptimizerState>& states() const { return states_; }
  Model& model() const { return model_; }

 protected:
  /// Allocates all state at zero. Throws usage for values out of range.
  Optimizer(const OptimizerConfig& config, Model& model);
  const OptimizerConfig& config() const { return config_; }
  /// Whether this rank keeps the state of the parameter of that index, and updates it.
  bool owns(size_t parameter) const;
  /// State number `i` of the parameter.
  Tensor state(size_t parameter, size_t i) const;
  /// Updates the parameters that this rank owns.
  virtual void update(double learning_rate, int64_t step, double gradient_scale) = 0;

 private:
  void share_weights();
  OptimizerConfig config_;
  Model& model_;
  std::vector<int64_t> owners_;  // by parameter, rank in its group; empty: every rank owns all
  std::vector<OptimizerState> states_;
  std::vector<size_t> first_state_;  // of each parameter
};

/// The model must outlive the optimizer. Throws usage for values out of range, or when Adafactor
/// cannot work on the model's mesh.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, Model& model);

/// How Adafactor views a parameter: as [batch, rows, columns], from dimensions in this order.
struct AdafactorView {
  int batch_dimension = -1;  // -1: batch is 1
  int row_dimension = -1;    // -1: not factored, or rank 1
  int column_dimension = -1;
  bool factored = false;
  bool one_rms = true;  // rms of weight and update over everything, not per batch entry; its sums
                        // are taken by batch entry, then in order
  int64_t batch = 1, rows = 1, columns = 1;
  /// Whether the view takes a transposition of the stored tensor.
  bool permuted() const { return batch_dimension > 0; }
};

/// ExpertRms::all: Mesh TensorFlow's rule. The two largest dimensions of the whole variable are
/// factored iff both reach `min_size`, the expert dimension if it is one of them; of equal sizes
/// the earlier dimension counts as larger. ExpertRms::each: T5X's rule. Experts are a batch of
/// variables of their own, routers are never factored.
AdafactorView adafactor_view(const ParameterSpec& spec, Conventions::ExpertRms rule,
                             int64_t min_size);

}  // namespace sw
