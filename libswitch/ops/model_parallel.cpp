#include "libswitch/ops/model_parallel.h"

#include "libswitch/base/profile.h"
#include "libswitch/kernels/columns.h"
#include "libswitch/kernels/elementwise.h"

namespace sw::ops {
namespace {

double bytes_of(const Tensor& x) { return static_cast<double>(x.bytes()); }

int64_t part_of_columns(const Group& group, const Tensor& x) {
  SW_CHECK(x.rank() == 2 && x.size(1) % group.size() == 0, internal,
           "model axis: {} cannot be cut into {} parts of columns", x.shape().str(), group.size());
  return x.size(1) / group.size();
}

Tensor own_columns(const Stream& stream, const Group& group, const Tensor& x) {
  const int64_t columns = part_of_columns(group, x);
  Tensor y = Tensor::empty({x.size(0), columns}, x.dtype(), x.device());
  kernels::copy_columns(stream, y, 0, x, group.rank() * columns, columns);
  return y;
}

Tensor summed_own_columns(const Stream& stream, Group& group, const Tensor& x) {
  const ProfileRegion region(kNoScope, "model reduce-scatter", 0, 2 * bytes_of(x));
  const int64_t columns = part_of_columns(group, x), rows = x.size(0);
  Tensor parts = Tensor::empty({group.size() * rows, columns}, x.dtype(), x.device());
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    Tensor part = parts.slice(rank * rows, (rank + 1) * rows);
    kernels::copy_columns(stream, part, 0, x, rank * columns, columns);
  }
  Tensor y = Tensor::empty({rows, columns}, x.dtype(), x.device());
  group.reduce_scatter(y, parts);
  return y;
}

void all_reduce(Group& group, Tensor& x) {
  const ProfileRegion region(kNoScope, "model all-reduce", 0, 2 * bytes_of(x));
  group.all_reduce(x);
}

// An op whose gradient is `backward(stream, group, d_y)`, a tensor of its own.
template <class Backward>
Var recorded(Context& context, const Var& x, Tensor y, const Backward& backward) {
  Var output = context.output(std::move(y), {&x});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, group = &context.mesh->model(), dx = x.slot(),
                          dy = output.slot(), backward] {
      if (!dy->is_set()) return;
      dx->adopt(stream, backward(stream, *group, *dy));
    });
  }
  return output;
}

}  // namespace

Tensor gathered_rows(Group& group, const Tensor& x) {
  const ProfileRegion region(kNoScope, "model all-gather", 0,
                             static_cast<double>(group.size() * x.bytes()));
  Tensor all = Tensor::empty({group.size() * x.size(0), x.size(1)}, x.dtype(), x.device());
  group.all_gather(all, x);
  return all.view({group.size(), x.size(0), x.size(1)});
}

Tensor gathered_columns(const Stream& stream, Group& group, const Tensor& x) {
  const ProfileRegion region(kNoScope, "model all-gather", 0,
                             static_cast<double>(group.size()) * bytes_of(x));
  const int64_t rows = x.size(0), columns = x.size(1);
  Tensor parts = Tensor::empty({group.size() * rows, columns}, x.dtype(), x.device());
  group.all_gather(parts, x);
  Tensor y = Tensor::empty({rows, group.size() * columns}, x.dtype(), x.device());
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    kernels::copy_columns(stream, y, rank * columns, parts.slice(rank * rows, (rank + 1) * rows), 0,
                          columns);
  }
  return y;
}

Var copy_to_model(Context& context, const Var& x) {
  if (context.mesh->model().size() == 1) return x;
  return recorded(context, x, x.value(), [](const Stream& stream, Group& group, GradientSlot& dy) {
    Tensor sum = dy.take_unshared();
    if (!sum.defined()) {
      const Tensor& share = dy.gradient();
      sum = Tensor::empty(share.shape(), share.dtype(), share.device());
      kernels::scale(stream, sum, share, 1.0, Accum::write);
    }
    all_reduce(group, sum);
    return sum;
  });
}

Var sum_over_model(Context& context, const Var& x) {
  if (context.mesh->model().size() == 1) return x;
  Tensor sum = x.value();
  all_reduce(context.mesh->model(), sum);
  return Var(sum, x.slot());
}

Var slice_columns_over_model(Context& context, const Var& x) {
  Group& group = context.mesh->model();
  if (group.size() == 1) return x;
  return recorded(context, x, own_columns(context.stream, group, x.value()),
                  [](const Stream& stream, Group& model, GradientSlot& dy) {
                    return gathered_columns(stream, model, dy.gradient());
                  });
}

Var gather_columns_over_model(Context& context, const Var& x) {
  Group& group = context.mesh->model();
  if (group.size() == 1) return x;
  return recorded(context, x, gathered_columns(context.stream, group, x.value()),
                  [](const Stream& stream, Group& model, GradientSlot& dy) {
                    return own_columns(stream, model, dy.gradient());
                  });
}

Var gather_columns_to_model(Context& context, const Var& x) {
  Group& group = context.mesh->model();
  if (group.size() == 1) return x;
  return recorded(context, x, gathered_columns(context.stream, group, x.value()),
                  [](const Stream& stream, Group& model, GradientSlot& dy) {
                    return summed_own_columns(stream, model, dy.gradient());
                  });
}

Var sum_and_slice_over_model(Context& context, const Var& x) {
  Group& group = context.mesh->model();
  if (group.size() == 1) return x;
  return recorded(context, x, summed_own_columns(context.stream, group, x.value()),
                  [](const Stream& stream, Group& model, GradientSlot& dy) {
                    return gathered_columns(stream, model, dy.gradient());
                  });
}

}  // namespace sw::ops
