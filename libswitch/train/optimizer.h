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

  // AdamW.
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;  // not of norms and relative biases
};

/// "adafactor", "adamw"; throws usage otherwise.
OptimizerConfig::Kind optimizer_kind(const std::string& name);
const char* optimizer_name(OptimizerConfig::Kind kind);

/// One tensor of optimizer state, for the checkpoint.
struct OptimizerState {
  std::string path;  // "/optim/<parameter>/vr|vc|v|m"
  std::vector<std::string> axes;
  Tensor tensor;  // master precision; shares memory with the optimizer
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Updates every parameter from its gradient times `gradient_scale`; a parameter without gradient
  /// counts as having a gradient of zero. `step` counts updates from 0.
  virtual void apply(double learning_rate, int64_t step, double gradient_scale = 1.0) = 0;
  /// All state in the order of the parameters.
  const std::vector<OptimizerState>& states() const { return states_; }

 protected:
  /// A zeroed state tensor of `parameter`.
  Tensor add_state(const Parameter& parameter, const char* name, const Shape& shape,
                   std::vector<std::string> axes);

 private:
  std::vector<OptimizerState> states_;
};

/// State starts at zero. The model must outlive the optimizer. Throws usage for values out of
/// range.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, Model& model);

/// What make_optimizer would hold for a parameter, without allocating it.
struct OptimizerStateSpec {
  std::string path;
  Shape shape;
  std::vector<std::string> axes;
};
std::vector<OptimizerStateSpec> optimizer_state_specs(const OptimizerConfig& config,
                                                      const ModelConfig& model);

/// How Adafactor views a parameter: as [batch, rows, columns], from dimensions in this order.
struct AdafactorView {
  int batch_dimension = -1;  // -1: batch is 1
  int row_dimension = -1;    // -1: not factored, or rank 1
  int column_dimension = -1;
  bool factored = false;
  bool one_rms = true;  // rms of weight and update over everything, not per batch entry
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
