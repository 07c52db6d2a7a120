#include <algorithm>

#include "libswitch/train/adafactor.h"
#include "libswitch/train/gather_parts.h"

namespace sw {
namespace {

using kernels::AdafactorParams;
using kernels::AdafactorPart;

// Elements of the entries that go through the first stages together: they stay in cache.
constexpr int64_t kGroupElements = int64_t{1} << 20;

// What a parameter needs between the stages of its step.
class Staged {
 public:
  Staged(AdafactorWork& work, const AdafactorParams& params)
      : work_(work), tensors_(work.tensors), params_(params), stream_{tensors_.weight.device()} {
    const AdafactorView& view = work.view;
    const Tensor& weight = tensors_.weight;
    if (view.factored) {
      part_.batch = tensors_.row_moment.rank() == 1 ? 1 : tensors_.row_moment.size(0);
      part_.rows = tensors_.row_moment.elements() / part_.batch;
      part_.columns = tensors_.column_moment.elements() / part_.batch;
      part_.whole_rows = view.rows, part_.whole_columns = view.columns;
    } else {
      part_.batch = view.batch_dimension < 0 ? 1 : weight.size(view.batch_dimension);
      part_.columns = weight.elements() / part_.batch;
      part_.whole_columns = view.columns;
    }
    squares = Tensor::empty({part_.batch, 2}, DType::f64, weight.device());
    if (!view.factored) return;
    row_sums = Tensor::empty({part_.batch, part_.rows}, DType::f64, weight.device());
    column_sums = Tensor::empty({part_.batch, part_.columns}, DType::f64, weight.device());
    row_totals = Tensor::empty({part_.batch}, DType::f64, weight.device());
    row_factor_ = Tensor::empty({part_.batch, part_.rows}, weight.dtype(), weight.device());
    column_factor_ = Tensor::empty({part_.batch, part_.columns}, weight.dtype(), weight.device());
  }

  const AdafactorWork& work() const { return work_; }

  // Stages of entries [first, end).
  void sums(int64_t first, int64_t end) {
    if (!work_.view.factored) return;
    Tensor of_rows = row_sums.slice(first, end), of_columns = column_sums.slice(first, end);
    kernels::adafactor_sums(stream_, of_rows, of_columns, entries(tensors_.gradient, first, end),
                            part(first, end));
  }
  void moments(int64_t first, int64_t end) {
    if (!work_.view.factored) return;
    Tensor row_moment = entries(tensors_.row_moment, first, end);
    Tensor column_moment = entries(tensors_.column_moment, first, end);
    Tensor totals = row_totals.slice(first, end), factor = column_factor_.slice(first, end);
    kernels::adafactor_moments(stream_, row_moment, column_moment, totals, factor,
                               row_sums.slice(first, end), column_sums.slice(first, end),
                               part(first, end), params_);
  }
  void sum_squares(int64_t first, int64_t end) {
    Tensor out = squares.slice(first, end);
    const Tensor weight = entries(tensors_.weight, first, end);
    const Tensor gradient = entries(tensors_.gradient, first, end);
    if (work_.view.factored) {
      Tensor factor = row_factor_.slice(first, end);
      kernels::adafactor_squares(
          stream_, out, factor, weight, gradient, entries(tensors_.row_moment, first, end),
          row_totals.slice(first, end), column_factor_.slice(first, end),
          tensors_.squares_known ? tensors_.weight_squares.slice(first, end) : Tensor(),
          part(first, end), params_);
    } else {
      Tensor moment = entries(tensors_.moment, first, end);
      kernels::adafactor_unfactored_squares(stream_, out, moment, weight, gradient, end - first,
                                            part_.columns, params_);
    }
  }
  // All stages up to squares, for a part that holds whole matrices.
  void prepare() {
    const int64_t size = std::max<int64_t>(part_.rows * part_.columns, 1);
    const int64_t group = std::clamp<int64_t>(kGroupElements / size, 1, part_.batch);
    for (int64_t first = 0; first < part_.batch; first += group) {
      const int64_t end = std::min(part_.batch, first + group);
      sums(first, end);
      moments(first, end);
      sum_squares(first, end);
    }
  }
  // `all_squares`: of all entries of the whole when the view has one rms, else those held here.
  void update(const Tensor& all_squares) {
    Tensor sizes = Tensor::empty({part_.batch}, DType::f64, tensors_.weight.device());
    const int64_t count = work_.view.rows * work_.view.columns;
    kernels::adafactor_step_sizes(stream_, sizes, all_squares, count, work_.view.one_rms, params_);
    if (work_.view.factored) {
      kernels::adafactor_update(stream_, tensors_.weight, tensors_.value, tensors_.weight_squares,
                                tensors_.gradient, row_factor_, column_factor_, sizes, part_);
    } else {
      kernels::adafactor_unfactored_update(stream_, tensors_.weight, tensors_.value,
                                           tensors_.gradient, tensors_.moment, sizes, part_.batch,
                                           part_.columns, params_);
    }
  }

  int64_t batch() const { return part_.batch; }
  Tensor row_sums, column_sums, row_totals, squares;

 private:
  Tensor entries(const Tensor& x, int64_t first, int64_t end) const {
    return x.view({part_.batch, x.elements() / part_.batch}).slice(first, end);
  }
  AdafactorPart part(int64_t first, int64_t end) const {
    AdafactorPart part = part_;
    part.batch = end - first;
    return part;
  }

  AdafactorWork& work_;
  AdafactorTensors& tensors_;
  const AdafactorParams& params_;
  Stream stream_;
  AdafactorPart part_;
  Tensor row_factor_, column_factor_;
};

void sum_over(Group& group, std::vector<Tensor> parts) {
  if (!parts.empty()) group.start_all_reduce(std::move(parts))->finish();
}

// Stages of the parameters that the model axis cuts, with the sums over it in between.
void prepare_over(Group& model, const std::vector<Staged*>& steps) {
  std::vector<Tensor> sums, totals, squares;
  for (Staged* step : steps) {
    const AdafactorCut cut = step->work().over_model;
    const bool factored = step->work().view.factored;
    step->sums(0, step->batch());
    if (factored && cut == AdafactorCut::rows) sums.push_back(step->column_sums);
    if (factored && cut == AdafactorCut::columns) sums.push_back(step->row_sums);
    if (factored && cut == AdafactorCut::rows) totals.push_back(step->row_totals);
    if (cut != AdafactorCut::batch) squares.push_back(step->squares);
  }
  sum_over(model, sums);
  for (Staged* step : steps) step->moments(0, step->batch());
  sum_over(model, totals);
  for (Staged* step : steps) step->sum_squares(0, step->batch());
  sum_over(model, squares);
}

}  // namespace

void adafactor_fused(AdafactorWork& work, const AdafactorParams& params) {
  AdafactorTensors& t = work.tensors;
  const int64_t whole = work.view.batch * work.view.rows * work.view.columns;
  // Fewer experts than the whole has, each with an rms of its own.
  const int64_t batch = whole == 0 ? 0 : work.view.batch * t.weight.elements() / whole;
  kernels::adafactor_step(Stream{t.weight.device()}, t.weight, t.value, t.row_moment,
                          t.column_moment, t.moment, t.weight_squares, t.squares_known, t.gradient,
                          batch, work.view.rows, work.view.columns, work.view.one_rms, params,
                          nullptr);
}

void adafactor_staged(std::vector<AdafactorWork>& works, const Mesh& mesh,
                      const AdafactorParams& params) {
  std::vector<Staged> steps;
  steps.reserve(works.size());
  for (AdafactorWork& work : works) steps.emplace_back(work, params);
  std::vector<Staged*> over_model;
  for (Staged& step : steps) {
    if (step.work().over_model == AdafactorCut::none) {
      step.prepare();
    } else {
      over_model.push_back(&step);
    }
  }
  prepare_over(mesh.model(), over_model);

  // One rms over everything: the squares of all entries in the order of the whole.
  const auto gather = [&](Group& group, const auto& is_cut) {
    std::vector<Tensor> parts;
    for (Staged& step : steps) {
      if (step.work().view.one_rms && is_cut(step.work())) parts.push_back(step.squares);
    }
    parts = gather_parts(group, parts);
    auto next = parts.begin();
    for (Staged& step : steps) {
      if (step.work().view.one_rms && is_cut(step.work())) step.squares = *next++;
    }
  };
  gather(mesh.model(),
         [](const AdafactorWork& work) { return work.over_model == AdafactorCut::batch; });
  gather(mesh.expert(),
         [](const AdafactorWork& work) { return work.over_expert == AdafactorCut::batch; });
  // Last first: its gradient is in cache.
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) step->update(step->squares);
}

}  // namespace sw
