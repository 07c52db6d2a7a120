#include "libswitch/train/gradient_tree.h"

#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/train/gather_parts.h"

namespace sw {

GradientTree::GradientTree(Model& model, int64_t shards) : model_(model), shards_(shards) {
  SW_CHECK(shards >= 1, internal, "gradient tree: {} shards, expected at least 1", shards);
}

void GradientTree::Add::operator()(Gradients& left, const Gradients& right) const {
  for (size_t i = 0; i < left.size(); ++i) {
    if (!right[i].defined()) continue;
    if (!left[i].defined()) {
      left[i] = right[i];
    } else {
      kernels::scale(Stream{left[i].device()}, left[i], right[i], 1.0, Accum::add);
    }
  }
}

void GradientTree::push() {
  if (shards_ == 1) return;  // the slots hold the sum already
  Gradients leaf;
  for (auto& parameter : model_.parameters()) {
    GradientSlot& slot = parameter->gradient();
    Tensor gradient = slot.take_unshared();
    if (!gradient.defined() && slot.is_set()) {
      gradient = slot.gradient().clone();
      slot.clear();
    }
    leaf.push_back(std::move(gradient));
  }
  tree_.push(std::move(leaf));
}

void GradientTree::finish() {
  if (shards_ == 1) return;
  Gradients sums = tree_.finish();
  for (size_t i = 0; i < sums.size(); ++i) {
    GradientSlot& slot = model_.parameters()[i]->gradient();
    slot.clear();
    if (!sums[i].defined()) continue;
    const Stream stream{sums[i].device()};
    slot.adopt(stream, std::move(sums[i]));
  }
}

namespace {

// Sums of squares of the part of a gradient held here: one, or one by expert.
Tensor sums_of_squares(const Parameter& parameter) {
  const bool by_expert = parameter.spec().expert();
  const int64_t sums = by_expert ? parameter.master().size(0) : 1;
  Tensor out = Tensor::zeros({sums}, DType::f64);
  if (!parameter.gradient().is_set()) return out;
  const Tensor& gradient = parameter.gradient().gradient();
  const Stream stream{gradient.device()};
  for (int64_t i = 0; i < sums; ++i) {
    kernels::sum_of_squares(stream, out.data<double>() + i, by_expert ? gradient[i] : gradient);
  }
  return out;
}

}  // namespace

double gradient_norm(const Model& model) {
  const Mesh& mesh = model.mesh();
  std::vector<Tensor> squares, split, experts;
  for (const auto& parameter : model.parameters()) {
    squares.push_back(sums_of_squares(*parameter));
    if (parameter->placement().model_dimension >= 0) split.push_back(squares.back());
    if (parameter->spec().expert()) experts.push_back(squares.back());
  }
  if (mesh.model().size() > 1) mesh.model().start_all_reduce(split)->finish();
  experts = gather_parts(mesh.expert(), experts);

  double sum = 0;
  auto next = experts.begin();
  for (size_t i = 0; i < squares.size(); ++i) {
    if (!model.parameters()[i]->spec().expert()) {
      sum += squares[i].data<double>()[0];
      continue;
    }
    const auto add = [](double& left, double right) { left += right; };
    SumTree<double, decltype(add)> tree(add);
    for (int64_t e = 0; e < next->elements(); ++e) tree.push(next->data<double>()[e]);
    sum += tree.finish();
    ++next;
  }
  return std::sqrt(sum);
}

}  // namespace sw
