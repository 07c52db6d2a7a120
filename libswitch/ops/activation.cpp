#include "libswitch/ops/activation.h"

#include "libswitch/base/profile.h"
#include "libswitch/kernels/elementwise.h"

namespace sw::ops {
namespace {

// `tensors` of x's size are read or written.
double traffic(int tensors, const Tensor& x) { return tensors * static_cast<double>(x.bytes()); }

}  // namespace

Var relu(Context& context, const Var& x) {
  const ProfileRegion region("relu forward", 0, traffic(2, x.value()));
  Tensor y = x.value();
  kernels::relu_forward(context.stream, y, x.value());
  Var output = context.output(y, {&x});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, dx = x.slot(), y, dy = output.slot(), scope = profile_scope()] {
          if (!dy->is_set()) return;
          const ProfileRegion region(scope, "relu backward", 0, traffic(3, y));
          if (Tensor gradient = dx->is_set() ? Tensor() : dy->take_unshared(); gradient.defined()) {
            // Nobody else reads d_y: mask it where it lies.
            kernels::relu_backward(stream, gradient, Accum::write, y, gradient);
            dx->adopt(stream, gradient);
          } else {
            auto [d_x, accum] = dx->target();
            kernels::relu_backward(stream, d_x, accum, y, dy->gradient());
          }
        });
  }
  return output;
}

Var activation(Context& context, const Var& x, kernels::Curve curve) {
  const ProfileRegion region("activation forward", 0, traffic(2, x.value()));
  Tensor y = Tensor::empty(x.shape(), x.value().dtype(), context.device());
  kernels::curve_forward(context.stream, y, x.value(), curve);
  Var output = context.output(std::move(y), {&x});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, x, dy = output.slot(), curve, scope = profile_scope()] {
          if (!dy->is_set()) return;
          const ProfileRegion region(scope, "activation backward", 0, traffic(3, x.value()));
          auto [d_x, accum] = x.slot()->target();
          kernels::curve_backward(stream, d_x, accum, x.value(), dy->gradient(), curve);
        });
  }
  return output;
}

Var gated(Context& context, const Var& a, const Var& b, kernels::Curve curve) {
  const ProfileRegion region("gate forward", 0, traffic(3, a.value()));
  Tensor y = Tensor::empty(a.shape(), a.value().dtype(), context.device());
  kernels::gated_forward(context.stream, y, a.value(), b.value(), curve);
  Var output = context.output(std::move(y), {&a, &b});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, a, b, dy = output.slot(), curve, scope = profile_scope()] {
          if (!dy->is_set()) return;
          const ProfileRegion region(scope, "gate backward", 0, traffic(5, a.value()));
          auto [d_a, accum_a] = a.slot()->target();
          auto [d_b, accum_b] = b.slot()->target();
          kernels::gated_backward(stream, d_a, accum_a, d_b, accum_b, a.value(), b.value(),
                                  dy->gradient(), curve);
        });
  }
  return output;
}

Var dropout(Context& context, const Var& x, double rate, uint64_t site, int64_t first_row,
            int64_t rows_per_mask, MeshPart columns) {
  if (!context.training || rate == 0) return x;
  const ProfileRegion region("dropout forward", 0, traffic(2, x.value()));
  const int64_t total_columns = x.value().size(-1) * columns.parts;
  const kernels::DropoutParams params{
      rate,          context.key(RngPurpose::dropout, site), first_row,
      rows_per_mask, columns.begin(total_columns),           total_columns};
  Tensor y = Tensor::empty(x.shape(), x.value().dtype(), context.device());
  kernels::dropout(context.stream, y, Accum::write, x.value(), params);
  Var output = context.output(std::move(y), {&x});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, dx = x.slot(), dy = output.slot(), params,
                          scope = profile_scope()] {
      if (!dy->is_set()) return;
      const ProfileRegion region(scope, "dropout backward", 0, traffic(2, dy->gradient()));
      auto [d_x, accum] = dx->target();
      kernels::dropout(stream, d_x, accum, dy->gradient(), params);
    });
  }
  return output;
}

Var mask_rows(Context& context, const Var& x, const Tensor& row_mask) {
  if (!row_mask.defined()) return x;
  Tensor y = Tensor::empty(x.shape(), x.value().dtype(), context.device());
  kernels::mask_rows(context.stream, y, Accum::write, x.value(), row_mask);
  Var output = context.output(std::move(y), {&x});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, dx = x.slot(), dy = output.slot(), row_mask] {
      if (!dy->is_set()) return;
      auto [d_x, accum] = dx->target();
      kernels::mask_rows(stream, d_x, accum, dy->gradient(), row_mask);
    });
  }
  return output;
}

}  // namespace sw::ops
