#include "libswitch/ops/linear.h"

#include "libswitch/base/profile.h"
#include "libswitch/kernels/bias.h"
#include "libswitch/kernels/matmul.h"

namespace sw::ops {

using kernels::Transpose;

namespace {

// Of rows of x, [.., K], times a matrix [K, columns].
double product_flops(const Tensor& x, int64_t columns) {
  return 2.0 * static_cast<double>(x.elements()) * static_cast<double>(columns);
}
double product_bytes(const Tensor& a, const Tensor& b, const Tensor& c) {
  return static_cast<double>(a.bytes() + b.bytes() + c.bytes());
}

}  // namespace

Var linear(Context& context, const Var& x, const Var& w) {
  const Shape& in = x.shape();
  SW_CHECK(w.value().rank() == 2 && in.rank() >= 1 && in[-1] == w.value().size(0), internal,
           "linear: x {} does not fit w {}", in.str(), w.shape().str());
  ProfileRegion region("forward", product_flops(x.value(), w.value().size(1)));
  Shape out(in.begin(), in.end() - 1);
  out.push_back(w.value().size(1));
  Tensor y = Tensor::empty(out, x.value().dtype(), context.device());
  region.add(0, product_bytes(y, x.value(), w.value()));
  kernels::matmul(context.stream, y, x.value(), Transpose::no, w.value(), Transpose::no,
                  Accum::write);
  Var output = context.output(std::move(y), {&x, &w});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, x, w, dy = output.slot(), scope = profile_scope()] {
          if (!dy->is_set()) return;
          const double flops = product_flops(x.value(), w.value().size(1));
          if (w.needs_gradient()) {
            ProfileRegion region(scope, "d_weight", flops);
            auto [d_w, accum] = w.slot()->target();
            region.add(0, product_bytes(d_w, x.value(), dy->gradient()));
            kernels::matmul(stream, d_w, x.value(), Transpose::yes, dy->gradient(), Transpose::no,
                            accum);
          }
          if (x.needs_gradient()) {
            ProfileRegion region(scope, "d_input", flops);
            auto [d_x, accum] = x.slot()->target();
            region.add(0, product_bytes(d_x, dy->gradient(), w.value()));
            kernels::matmul(stream, d_x, dy->gradient(), Transpose::no, w.value(), Transpose::yes,
                            accum);
          }
        });
  }
  return output;
}

Var add_bias(Context& context, const Var& x, const Var& bias) {
  check_tensor("add_bias", "bias", bias.value(), {x.value().size(1)}, x.value().dtype());
  const double traffic = 2 * static_cast<double>(x.value().bytes());
  const ProfileRegion region("bias forward", 0, traffic);
  Tensor y = Tensor::empty(x.shape(), x.value().dtype(), context.device());
  kernels::add_bias(context.stream, y, x.value(), bias.value());
  Var output = context.output(std::move(y), {&x, &bias});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, d_x = x.slot(), d_bias = bias.slot(),
                          dy = output.slot(), traffic, scope = profile_scope()] {
      if (!dy->is_set()) return;
      const ProfileRegion region(scope, "bias backward", 0, traffic);
      if (d_bias) {
        auto [target, accum] = d_bias->target();
        kernels::bias_gradient(stream, target, accum, dy->gradient());
      }
      if (d_x) d_x->adopt(stream, dy->gradient());
    });
  }
  return output;
}

Var expert_linear(Context& context, const Var& x, const Var& w, const Tensor& offsets) {
  SW_CHECK(w.value().rank() == 3 && x.value().rank() == 2 && x.value().size(1) == w.value().size(1),
           internal, "expert_linear: x {} does not fit w {}", x.shape().str(), w.shape().str());
  ProfileRegion region("forward", product_flops(x.value(), w.value().size(2)));
  Tensor y =
      Tensor::empty({x.value().size(0), w.value().size(2)}, x.value().dtype(), context.device());
  region.add(0, product_bytes(y, x.value(), w.value()));
  kernels::grouped_matmul(context.stream, y, x.value(), w.value(), Transpose::no, offsets,
                          Accum::write);
  Var output = context.output(std::move(y), {&x, &w});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, x, w, offsets, dy = output.slot(), scope = profile_scope()] {
          if (!dy->is_set()) return;
          const double flops = product_flops(x.value(), w.value().size(2));
          if (w.needs_gradient()) {
            ProfileRegion region(scope, "d_weight", flops);
            auto [d_w, accum] = w.slot()->target();
            region.add(0, product_bytes(d_w, x.value(), dy->gradient()));
            kernels::grouped_matmul_weight_gradient(stream, d_w, x.value(), dy->gradient(), offsets,
                                                    accum);
          }
          if (x.needs_gradient()) {
            ProfileRegion region(scope, "d_input", flops);
            auto [d_x, accum] = x.slot()->target();
            region.add(0, product_bytes(d_x, dy->gradient(), w.value()));
            kernels::grouped_matmul(stream, d_x, dy->gradient(), w.value(), Transpose::yes, offsets,
                                    accum);
          }
        });
  }
  return output;
}

}  // namespace sw::ops
