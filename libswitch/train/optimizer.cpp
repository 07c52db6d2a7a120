#include "libswitch/train/optimizer.h"

#include <array>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/optimizer.h"

namespace sw {
namespace {

constexpr std::array kNames = {"adafactor", "adamw"};

// The gradient of a parameter; zeros where nothing contributed.
const Tensor& gradient_of(Parameter& parameter) {
  GradientSlot& slot = parameter.gradient();
  if (!slot.is_set()) {
    Tensor tensor = slot.target().tensor;
    kernels::fill(Stream{tensor.device()}, tensor, 0.0);
  }
  return slot.gradient();
}

// Strides of a rank-3 tensor taken in the order batch, rows, columns.
struct Permutation {
  std::array<int64_t, 3> size;    // of the permuted tensor
  std::array<int64_t, 3> stride;  // of its dimensions in the stored tensor
};

Permutation permutation(const Shape& shape, const AdafactorView& view) {
  const std::array<int64_t, 3> strides = {shape[1] * shape[2], shape[2], 1};
  Permutation p{};
  const std::array<int, 3> order = {view.batch_dimension, view.row_dimension,
                                    view.column_dimension};
  for (size_t i = 0; i < 3; ++i) {
    p.size[i] = shape[order[i]];
    p.stride[i] = strides[static_cast<size_t>(order[i])];
  }
  return p;
}

// Calls fn(place in the permuted tensor, place in the stored tensor) for every element.
template <class Fn>
void for_each_permuted(const Permutation& p, const Fn& fn) {
  parallel_for(p.size[0] * p.size[1], 64, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t stored = line / p.size[1] * p.stride[0] + line % p.size[1] * p.stride[1];
      for (int64_t j = 0; j < p.size[2]; ++j) fn(line * p.size[2] + j, stored + j * p.stride[2]);
    }
  });
}

template <class T>
void copy_permuted(const Permutation& p, const Tensor& from, Tensor& to, bool back) {
  const T* source = from.data<T>();
  T* destination = to.data<T>();
  if (back) {
    for_each_permuted(p, [=](int64_t at, int64_t stored) { destination[stored] = source[at]; });
  } else {
    for_each_permuted(p, [=](int64_t at, int64_t stored) { destination[at] = source[stored]; });
  }
}

void copy_permuted(const Permutation& p, const Tensor& from, Tensor& to, bool back) {
  if (from.dtype() == DType::f64) {
    copy_permuted<double>(p, from, to, back);
  } else {
    copy_permuted<float>(p, from, to, back);
  }
}

class Adafactor final : public Optimizer {
 public:
  Adafactor(const OptimizerConfig& config, Model& model) : config_(config) {
    const auto specs = optimizer_state_specs(config, model.config());
    size_t next = 0;
    for (auto& parameter : model.parameters()) {
      Slot slot;
      slot.parameter = parameter.get();
      slot.view = adafactor_view(parameter->spec(), model.config().conventions.adafactor_expert_rms,
                                 config.min_factored_size);
      const auto state = [&](const char* name) {
        const OptimizerStateSpec& spec = specs[next++];
        return add_state(*parameter, name, spec.shape, spec.axes);
      };
      if (slot.view.factored) {
        slot.row_moment = state("vr");
        slot.column_moment = state("vc");
      } else {
        slot.moment = state("v");
      }
      slots_.push_back(std::move(slot));
    }
  }

  void apply(double learning_rate, int64_t step, double gradient_scale) override {
    kernels::AdafactorParams params;
    params.learning_rate = learning_rate;
    params.beta2 = 1.0 - std::pow(static_cast<double>(step) + 1.0, -config_.decay_exponent);
    params.epsilon1 = config_.epsilon1;
    params.epsilon2 = config_.epsilon2;
    params.clip_threshold = config_.clip_threshold;
    params.gradient_scale = gradient_scale;
    params.multiply_by_rms = config_.multiply_by_rms;
    for (Slot& slot : slots_) {
      const Tensor& gradient = gradient_of(*slot.parameter);
      if (slot.view.permuted()) {
        step_permuted(slot, gradient, params);
      } else {
        kernels::adafactor_step(Stream{gradient.device()}, slot.parameter->master(),
                                slot.parameter->working_copy(), slot.row_moment, slot.column_moment,
                                slot.moment, gradient, slot.view.batch, slot.view.rows,
                                slot.view.columns, slot.view.one_rms, params, nullptr);
      }
    }
  }

 private:
  struct Slot {
    Parameter* parameter = nullptr;
    AdafactorView view;
    Tensor row_moment, column_moment, moment;
  };

  // Experts outnumber the model's width: rare and small, so the tensors are transposed for it.
  static void step_permuted(Slot& slot, const Tensor& gradient,
                            const kernels::AdafactorParams& params) {
    Tensor& weight = slot.parameter->master();
    const Stream stream{weight.device()};
    SW_CHECK(!stream.device.is_cuda(), device,
             "adafactor: '{}' {} factors its expert dimension, which only the CPU does; take "
             "adafactor_expert_rms each, or fewer experts than its width",
             slot.parameter->name(), weight.shape().str());
    const Permutation p = permutation(weight.shape(), slot.view);
    const Shape shape{slot.view.batch, slot.view.rows, slot.view.columns};
    Tensor w = Tensor::empty(shape, weight.dtype()), g = Tensor::empty(shape, weight.dtype());
    copy_permuted(p, weight, w, false);
    copy_permuted(p, gradient, g, false);
    Tensor none;
    kernels::adafactor_step(stream, w, none, slot.row_moment, slot.column_moment, slot.moment, g,
                            slot.view.batch, slot.view.rows, slot.view.columns, slot.view.one_rms,
                            params, nullptr);
    copy_permuted(p, w, weight, true);
    slot.parameter->refresh(stream);
  }

  OptimizerConfig config_;
  std::vector<Slot> slots_;
};

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, Model& model) : config_(config) {
    for (auto& parameter : model.parameters()) {
      const ParameterSpec& spec = parameter->spec();
      Slot slot;
      slot.parameter = parameter.get();
      slot.first = add_state(*parameter, "m", spec.shape, spec.axes);
      slot.second = add_state(*parameter, "v", spec.shape, spec.axes);
      const bool bias = !spec.axes.empty() && spec.axes.back() == "buckets";
      slot.decays = spec.shape.rank() > 1 && !bias;
      slots_.push_back(std::move(slot));
    }
  }

  void apply(double learning_rate, int64_t step, double gradient_scale) override {
    for (Slot& slot : slots_) {
      kernels::AdamWParams params;
      params.learning_rate = learning_rate;
      params.beta1 = config_.beta1;
      params.beta2 = config_.beta2;
      params.epsilon = config_.epsilon;
      params.weight_decay = slot.decays ? config_.weight_decay : 0.0;
      params.step = step + 1;
      params.gradient_scale = gradient_scale;
      const Tensor& gradient = gradient_of(*slot.parameter);
      kernels::adamw_step(Stream{gradient.device()}, slot.parameter->master(),
                          slot.parameter->working_copy(), slot.first, slot.second, gradient,
                          params);
    }
  }

 private:
  struct Slot {
    Parameter* parameter = nullptr;
    Tensor first, second;
    bool decays = true;
  };
  OptimizerConfig config_;
  std::vector<Slot> slots_;
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

Tensor Optimizer::add_state(const Parameter& parameter, const char* name, const Shape& shape,
                            std::vector<std::string> axes) {
  const Tensor& master = parameter.master();
  Tensor tensor = Tensor::zeros(shape, master.dtype(), master.device());
  states_.push_back({state_path(parameter.name(), name), std::move(axes), tensor});
  return tensor;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, Model& model) {
  validate(config);
  if (config.kind == OptimizerConfig::Kind::adamw) return std::make_unique<AdamW>(config, model);
  return std::make_unique<Adafactor>(config, model);
}

std::vector<OptimizerStateSpec> optimizer_state_specs(const OptimizerConfig& config,
                                                      const ModelConfig& model) {
  std::vector<OptimizerStateSpec> specs;
  for (const ParameterSpec& spec : parameter_specs(model)) {
    if (config.kind == OptimizerConfig::Kind::adamw) {
      specs.push_back({state_path(spec.name, "m"), spec.shape, spec.axes});
      specs.push_back({state_path(spec.name, "v"), spec.shape, spec.axes});
      continue;
    }
    const AdafactorView view =
        adafactor_view(spec, model.conventions.adafactor_expert_rms, config.min_factored_size);
    if (!view.factored) {
      specs.push_back({state_path(spec.name, "v"), spec.shape, spec.axes});
      continue;
    }
    for (const auto& [name, dimension] :
         {std::pair{"vr", view.row_dimension}, std::pair{"vc", view.column_dimension}}) {
      OptimizerStateSpec state{state_path(spec.name, name), {}, {}};
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
