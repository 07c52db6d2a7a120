#include "libswitch/train/gradient_tree.h"

#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/kernels/elementwise.h"

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

double gradient_norm(const Model& model) {
  double sum = 0;
  for (const auto& parameter : model.parameters()) {
    if (!parameter->gradient().is_set()) continue;
    const Tensor& gradient = parameter->gradient().gradient();
    const Stream stream{gradient.device()};
    const auto squares = [&](const Tensor& part) {
      double result = 0;
      kernels::sum_of_squares(stream, &result, part);
      return result;
    };
    if (!parameter->spec().expert()) {
      sum += squares(gradient);
      continue;
    }
    const auto add = [](double& left, double right) { left += right; };
    SumTree<double, decltype(add)> experts(add);
    for (int64_t e = 0; e < gradient.size(0); ++e) experts.push(squares(gradient[e]));
    sum += experts.finish();
  }
  return std::sqrt(sum);
}

}  // namespace sw
