#include <algorithm>
#include <array>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/train/optimizer.h"

namespace sw {
namespace {

bool is_router(const ParameterSpec& spec) {
  return spec.axes.size() == 2 && spec.axes[1] == "experts";
}

// Sizes of a view without factors; experts are entries of the batch.
AdafactorView unfactored(const ParameterSpec& spec, bool each_expert) {
  AdafactorView view;
  if (spec.expert()) {
    view.batch_dimension = 0;
    view.batch = spec.shape[0];
  }
  view.one_rms = !each_expert;
  view.columns = view.batch == 0 ? 0 : spec.elements() / view.batch;
  return view;
}

}  // namespace

AdafactorView adafactor_view(const ParameterSpec& spec, Conventions::ExpertRms rule,
                             int64_t min_size) {
  const int rank = spec.shape.rank();
  SW_CHECK(rank <= 3, internal, "adafactor: '{}' has rank {}, expected at most 3", spec.name, rank);
  const bool each = rule == Conventions::ExpertRms::each;
  const bool each_expert = each && spec.expert();
  AdafactorView view = unfactored(spec, each_expert);
  if (rank < 2 || (each && is_router(spec))) return view;

  std::array<int, 3> order{0, 1, 2};  // dimensions by size, the largest first
  const auto begin = order.begin() + (each_expert ? 1 : 0), end = order.begin() + rank;
  if (end - begin < 2) return view;
  std::stable_sort(begin, end, [&](int a, int b) { return spec.shape[a] > spec.shape[b]; });
  if (spec.shape[begin[1]] < min_size) return view;

  view.factored = true;
  view.row_dimension = std::min(begin[0], begin[1]);
  view.column_dimension = std::max(begin[0], begin[1]);
  view.rows = spec.shape[view.row_dimension];
  view.columns = spec.shape[view.column_dimension];
  view.batch_dimension = -1;
  view.batch = 1;
  if (rank == 3) {
    view.batch_dimension = 3 - view.row_dimension - view.column_dimension;
    view.batch = spec.shape[view.batch_dimension];
  }
  return view;
}

}  // namespace sw
