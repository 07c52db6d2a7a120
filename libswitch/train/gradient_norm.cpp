#include "libswitch/train/gradient_norm.h"

#include <cmath>

#include "libswitch/base/parallel.h"
#include "libswitch/base/sum_tree.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/train/gather_parts.h"

namespace sw {

namespace {

// Sums of squares of the part of a gradient held here: one, or one by expert. Many experts are one
// task each, which their sums do not show.
Tensor sums_of_squares(const Parameter& parameter) {
  const bool by_expert = parameter.spec().expert();
  const int64_t sums = by_expert ? parameter.master().size(0) : 1;
  Tensor out = Tensor::zeros({sums}, DType::f64);
  if (!parameter.gradient().is_set()) return out;
  const Tensor& gradient = parameter.gradient().gradient();
  const Stream stream{gradient.device()};
  const auto sum = [&](int64_t i) {
    kernels::sum_of_squares(stream, out.data<double>() + i, by_expert ? gradient[i] : gradient);
  };
  if (sums >= 2 * num_threads()) {
    parallel_for(sums, 1, [&](int64_t i, int64_t) { sum(i); });
  } else {
    for (int64_t i = 0; i < sums; ++i) sum(i);
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
