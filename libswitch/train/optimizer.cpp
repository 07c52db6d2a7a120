#include "libswitch/train/optimizer.h"

#include <array>

#include "libswitch/base/error.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/optimizer.h"
#include "libswitch/train/adafactor.h"
#include "libswitch/train/optimizer_owners.h"

namespace sw {
namespace {

constexpr std::array kNames = {"adafactor", "adamw"};

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, Model& model) : Optimizer(config, model) {}

 private:
  void update(double learning_rate, int64_t step, double gradient_scale) override {
    for (size_t p = 0; p < model().parameters().size(); ++p) {
      if (!owns(p)) continue;
      Parameter& parameter = *model().parameters()[p];
      const ParameterSpec& spec = parameter.spec();
      const bool bias = !spec.axes.empty() && spec.axes.back() == "buckets";
      const bool decays = spec.shape.rank() > 1 && !bias;
      kernels::AdamWParams params;
      params.learning_rate = learning_rate;
      params.beta1 = config().beta1;
      params.beta2 = config().beta2;
      params.epsilon = config().epsilon;
      params.weight_decay = decays ? config().weight_decay : 0.0;
      params.step = step + 1;
      params.gradient_scale = gradient_scale;
      const Tensor& gradient = gradient_or_zeros(parameter);
      Tensor first = state(p, 0), second = state(p, 1);
      kernels::adamw_step(Stream{gradient.device()}, parameter.master(), parameter.working_copy(),
                          first, second, gradient, params);
    }
  }
};

void validate(const OptimizerConfig& config) {
  const auto rate = [](double value) { return value >= 0 && value < 1; };
  SW_CHECK(config.decay_exponent > 0 && config.clip_threshold > 0 && config.epsilon1 >= 0 &&
               config.epsilon2 >= 0 && config.min_factored_size >= 1,
           usage,
           "adafactor: decay exponent {}, clip threshold {}, epsilons {} and {}, smallest factored "
           "size {}: expected positive numbers",
           config.decay_exponent, config.clip_threshold, config.epsilon1, config.epsilon2,
           config.min_factored_size);
  SW_CHECK(
      rate(config.beta1) && rate(config.beta2) && config.epsilon > 0 && config.weight_decay >= 0,
      usage,
      "adamw: beta1 {}, beta2 {} (expected in [0, 1)), epsilon {} (above 0), weight decay {} "
      "(at least 0)",
      config.beta1, config.beta2, config.epsilon, config.weight_decay);
}

std::string state_path(const std::string& parameter, const char* name) {
  return fmt::format("/optim/{}/{}", parameter, name);
}

}  // namespace

OptimizerConfig::Kind optimizer_kind(const std::string& name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<OptimizerConfig::Kind>(i);
  }
  fail(ErrorKind::usage, "optimizer: unknown choice '{}', expected adafactor or adamw{}", name,
       nearest_hint(name, kNames));
}

const char* optimizer_name(OptimizerConfig::Kind kind) { return kNames[static_cast<size_t>(kind)]; }

const Tensor& gradient_or_zeros(Parameter& parameter) {
  GradientSlot& slot = parameter.gradient();
  if (!slot.is_set()) {
    Tensor tensor = slot.target().tensor;
    kernels::fill(Stream{tensor.device()}, tensor, 0.0);
  }
  return slot.gradient();
}

Optimizer::Optimizer(const OptimizerConfig& config, Model& model) : config_(config), model_(model) {
  validate(config);
  const Mesh& mesh = model.mesh();
  if (config.shard && mesh.data().size() > 1) {
    owners_ = assign_owners(parameter_specs(model.config()), mesh.shape());
  }
  std::vector<OptimizerStateSpec> specs = optimizer_state_specs(config, model.config());
  for (OptimizerStateSpec& spec : specs) {
    const Parameter& parameter = *model.parameters()[spec.parameter];
    if (first_state_.size() == spec.parameter) first_state_.push_back(states_.size());
    const Placement placement = placement_of(spec.axes);
    OptimizerState state;
    state.path = std::move(spec.path);
    state.axes = std::move(spec.axes);
    state.shape = spec.shape;
    state.rectangle = local_part(state.path, state.shape, placement, mesh);
    state.dtype = parameter.master().dtype();
    state.writes = writes_part(placement, mesh);
    if (!owners_.empty()) {
      // All ranks of a replica own the experts' state together.
      const bool first_expert = !parameter.spec().expert() || placement.expert_dimension >= 0 ||
                                mesh.expert_part().index == 0;
      const bool first_model = placement.model_dimension >= 0 || mesh.model_part().index == 0;
      state.writes = owns(spec.parameter) && first_expert && first_model;
    }
    if (owns(spec.parameter)) {
      state.tensor = Tensor::zeros(shape_of(state.rectangle, state.shape.rank()), state.dtype,
                                   parameter.master().device());
    }
    states_.push_back(std::move(state));
  }
}

bool Optimizer::owns(size_t parameter) const {
  if (owners_.empty()) return true;
  const Mesh& mesh = model_.mesh();
  const bool expert = model_.parameters()[parameter]->spec().expert();
  return owners_[parameter] == (expert ? mesh.replica() : mesh.data()).rank();
}

Tensor Optimizer::state(size_t parameter, size_t i) const {
  return states_[first_state_[parameter] + i].tensor;
}

void Optimizer::apply(double learning_rate, int64_t step, double gradient_scale) {
  update(learning_rate, step, gradient_scale);
  if (!owners_.empty()) share_weights();
}

void Optimizer::share_weights() {
  const Mesh& mesh = model_.mesh();
  for (size_t p = 0; p < owners_.size(); ++p) {
    Parameter& parameter = *model_.parameters()[p];
    Group& group = parameter.spec().expert() ? mesh.replica() : mesh.data();
    if (group.size() == 1) continue;
    group.broadcast(parameter.master(), owners_[p]);
    if (!owns(p)) parameter.refresh(Stream{parameter.master().device()});
  }
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, Model& model) {
  if (config.kind == OptimizerConfig::Kind::adamw) return std::make_unique<AdamW>(config, model);
  return make_adafactor(config, model);
}

std::vector<OptimizerStateSpec> optimizer_state_specs(const OptimizerConfig& config,
                                                      const ModelConfig& model) {
  std::vector<OptimizerStateSpec> specs;
  const std::vector<ParameterSpec> parameters = parameter_specs(model);
  for (size_t p = 0; p < parameters.size(); ++p) {
    const ParameterSpec& spec = parameters[p];
    if (config.kind == OptimizerConfig::Kind::adamw) {
      specs.push_back({state_path(spec.name, "m"), spec.shape, spec.axes, p});
      specs.push_back({state_path(spec.name, "v"), spec.shape, spec.axes, p});
      continue;
    }
    const AdafactorView view =
        adafactor_view(spec, model.conventions.adafactor_expert_rms, config.min_factored_size);
    if (!view.factored) {
      specs.push_back({state_path(spec.name, "v"), spec.shape, spec.axes, p});
      continue;
    }
    for (const auto& [name, dimension] :
         {std::pair{"vr", view.row_dimension}, std::pair{"vc", view.column_dimension}}) {
      OptimizerStateSpec state{state_path(spec.name, name), {}, {}, p};
      for (const int d : {view.batch_dimension, dimension}) {
        if (d < 0) continue;
        state.shape.push_back(spec.shape[d]);
        state.axes.push_back(spec.axes[static_cast<size_t>(d)]);
      }
      specs.push_back(std::move(state));
    }
  }
  return specs;
}

}  // namespace sw
