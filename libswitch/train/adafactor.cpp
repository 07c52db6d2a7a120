#include "libswitch/train/adafactor.h"

#include <array>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"

namespace sw {
namespace {

// A rank-3 tensor taken in the order batch, rows, columns.
class Permutation {
 public:
  Permutation(const Shape& shape, const AdafactorView& view) {
    const std::array<int64_t, 3> strides = {shape[1] * shape[2], shape[2], 1};
    const std::array<int, 3> order = {view.batch_dimension, view.row_dimension,
                                      view.column_dimension};
    for (size_t i = 0; i < 3; ++i) {
      size_[i] = shape[order[i]];
      stride_[i] = strides[static_cast<size_t>(order[i])];
    }
  }
  Shape shape() const { return {size_[0], size_[1], size_[2]}; }
  Tensor permuted(const Tensor& stored) const {
    Tensor out = Tensor::empty(shape(), stored.dtype());
    copy(stored, out, false);
    return out;
  }
  void put_back(const Tensor& permuted, Tensor& stored) const { copy(permuted, stored, true); }

 private:
  void copy(const Tensor& from, Tensor& to, bool back) const {
    if (from.dtype() == DType::f64) {
      copy_elements(from.data<double>(), to.data<double>(), back);
    } else {
      copy_elements(from.data<float>(), to.data<float>(), back);
    }
  }
  template <class T>
  void copy_elements(const T* from, T* to, bool back) const {
    parallel_for(size_[0] * size_[1], 64, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const int64_t stored = line / size_[1] * stride_[0] + line % size_[1] * stride_[1];
        for (int64_t j = 0; j < size_[2]; ++j) {
          const int64_t here = line * size_[2] + j, there = stored + j * stride_[2];
          to[back ? there : here] = from[back ? here : there];
        }
      }
    });
  }
  std::array<int64_t, 3> size_{};    // of the permuted tensor
  std::array<int64_t, 3> stride_{};  // of its dimensions in the stored tensor
};

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
      const bool by_expert =
          work.over_expert == AdafactorCut::rows || work.over_expert == AdafactorCut::columns;
      SW_CHECK(!by_expert, usage,
               "mesh {}: adafactor factors the expert dimension of '{}' {}, which must then not be "
               "cut; take expert=1 in --mesh, or --adafactor-expert-rms each",
               mesh.shape().str(), parameter->name(), parameter->spec().shape.str());
      works_.push_back(std::move(work));
    }
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
    std::vector<AdafactorWork> staged;
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
      if (work.view.permuted()) {
        step_permuted(work, parameter, params);
      } else if (work.staged()) {
        staged.push_back(std::move(work));
      } else {
        adafactor_fused(work, params);
      }
    }
    adafactor_staged(staged, model().mesh(), params);
  }

  // Experts outnumber the model's width: rare and small, so the tensors are transposed for it.
  void step_permuted(AdafactorWork& work, Parameter& parameter,
                     const kernels::AdafactorParams& params) {
    Tensor& weight = parameter.master();
    const Stream stream{weight.device()};
    SW_CHECK(!stream.device.is_cuda(), device,
             "adafactor: '{}' {} factors its expert dimension, which only the CPU does; take "
             "--adafactor-expert-rms each, or fewer experts than its width",
             parameter.name(), weight.shape().str());
    const Permutation permutation(weight.shape(), work.view);
    work.tensors.weight = permutation.permuted(weight);
    work.tensors.gradient = permutation.permuted(work.tensors.gradient);
    work.tensors.value = Tensor();
    if (work.staged()) {
      std::vector<AdafactorWork> alone{work};
      adafactor_staged(alone, model().mesh(), params);
    } else {
      adafactor_fused(work, params);
    }
    permutation.put_back(work.tensors.weight, weight);
    parameter.refresh(stream);
  }

  std::vector<AdafactorWork> works_;  // by parameter, without tensors
};

}  // namespace

std::unique_ptr<Optimizer> make_adafactor(const OptimizerConfig& config, Model& model) {
  return std::make_unique<Adafactor>(config, model);
}

}  // namespace sw
