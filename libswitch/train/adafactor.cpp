#include "libswitch/train/adafactor.h"

#include <cmath>

#include "libswitch/base/parallel.h"

namespace sw {
namespace {

// The dimension of the view that dimension `d` of the parameter is.
AdafactorCut cut_of(const AdafactorView& view, int d, int64_t parts) {
  if (d < 0 || parts == 1) return AdafactorCut::none;
  if (d == view.batch_dimension) return AdafactorCut::batch;
  if (d == view.row_dimension) return AdafactorCut::rows;
  return AdafactorCut::columns;
}

class Adafactor final : public Optimizer {
 public:
  Adafactor(const OptimizerConfig& config, Model& model) : Optimizer(config, model) {
    const Mesh& mesh = model.mesh();
    for (const auto& parameter : model.parameters()) {
      AdafactorWork work;
      work.view = adafactor_view(parameter->spec(), model.config().conventions.adafactor_expert_rms,
                                 config.min_factored_size);
      const Placement& placement = parameter->placement();
      work.over_expert = cut_of(work.view, placement.expert_dimension, mesh.expert_part().parts);
      work.over_model = cut_of(work.view, placement.model_dimension, mesh.model_part().parts);
      check_adafactor_permuted(work, *parameter, mesh);
      const Tensor& weight = parameter->master();
      if (work.view.factored && !work.view.permuted() && config.multiply_by_rms) {
        const int64_t batch = work.view.batch_dimension < 0 ? 1 : weight.size(0);
        work.tensors.weight_squares = Tensor::empty({batch}, DType::f64, weight.device());
      }
      works_.push_back(std::move(work));
    }
    known_.assign(works_.size(), -1);
  }

 private:
  void update(double learning_rate, int64_t step, double gradient_scale) override {
    kernels::AdafactorParams params;
    params.learning_rate = learning_rate;
    params.beta2 = 1.0 - std::pow(static_cast<double>(step) + 1.0, -config().decay_exponent);
    params.epsilon1 = config().epsilon1;
    params.epsilon2 = config().epsilon2;
    params.clip_threshold = config().clip_threshold;
    params.gradient_scale = gradient_scale;
    params.multiply_by_rms = config().multiply_by_rms;
    std::vector<AdafactorWork> staged, small;
    for (size_t p = 0; p < works_.size(); ++p) {
      if (!owns(p)) continue;
      Parameter& parameter = *model().parameters()[p];
      AdafactorWork work = works_[p];
      AdafactorTensors& t = work.tensors;
      t.weight = parameter.master();
      t.value = parameter.working_copy();
      t.gradient = gradient_or_zeros(parameter);
      (work.view.factored ? t.row_moment : t.moment) = state(p, 0);
      if (work.view.factored) t.column_moment = state(p, 1);
      t.squares_known = t.weight_squares.defined() && known_[p] == parameter.refreshes();
      known_[p] = parameter.refreshes();
      if (work.view.permuted()) {
        adafactor_permuted(work, parameter, model().mesh(), params);
      } else if (work.staged()) {
        staged.push_back(std::move(work));
      } else if (t.weight.elements() <= kSmall) {
        small.push_back(std::move(work));
      } else {
        adafactor_fused(work, params);
      }
    }
    parallel_for(std::ssize(small), 1, [&](int64_t i, int64_t) {
      adafactor_fused(small[static_cast<size_t>(i)], params);
    });
    adafactor_staged(staged, model().mesh(), params);
  }

  // Elements of a parameter whose step is one thread's work: all its readings find it in cache.
  static constexpr int64_t kSmall = int64_t{1} << 18;

  // By parameter: the work, of whose tensors only weight_squares is there, and the parameter's
  // refreshes() when that was written.
  std::vector<AdafactorWork> works_;
  std::vector<int64_t> known_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adafactor(const OptimizerConfig& config, Model& model) {
  return std::make_unique<Adafactor>(config, model);
}

}  // namespace sw
