#include "libswitch/ops/linear.h"

#include "libswitch/kernels/bias.h"
#include "libswitch/kernels/matmul.h"

namespace sw::ops {

using kernels::Transpose;

Var linear(Context& context, const Var& x, const Var& w) {
  const Shape& in = x.shape();
  SW_CHECK(w.value().rank() == 2 && in.rank() >= 1 && in[-1] == w.value().size(0), internal,
           "linear: x {} does not fit w {}", in.str(), w.shape().str());
  Shape out(in.begin(), in.end() - 1);
  out.push_back(w.value().size(1));
  Tensor y = Tensor::empty(out, x.value().dtype(), context.device());
  kernels::matmul(context.stream, y, x.value(), Transpose::no, w.value(), Transpose::no,
                  Accum::write);
  Var output = context.output(std::move(y), {&x, &w});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, x, w, dy = output.slot()] {
      if (!dy->is_set()) return;
      if (w.needs_gradient()) {
        auto [d_w, accum] = w.slot()->target();
        kernels::matmul(stream, d_w, x.value(), Transpose::yes, dy->gradient(), Transpose::no,
                        accum);
      }
      if (x.needs_gradient()) {
        auto [d_x, accum] = x.slot()->target();
        kernels::matmul(stream, d_x, dy->gradient(), Transpose::no, w.value(), Transpose::yes,
                        accum);
      }
    });
  }
  return output;
}

Var add_bias(Context& context, const Var& x, const Var& bias) {
  check_tensor("add_bias", "bias", bias.value(), {x.value().size(1)}, x.value().dtype());
  Tensor y = Tensor::empty(x.shape(), x.value().dtype(), context.device());
  kernels::add_bias(context.stream, y, x.value(), bias.value());
  Var output = context.output(std::move(y), {&x, &bias});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, d_x = x.slot(), d_bias = bias.slot(), dy = output.slot()] {
          if (!dy->is_set()) return;
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
  Tensor y =
      Tensor::empty({x.value().size(0), w.value().size(2)}, x.value().dtype(), context.device());
  kernels::grouped_matmul(context.stream, y, x.value(), w.value(), Transpose::no, offsets,
                          Accum::write);
  Var output = context.output(std::move(y), {&x, &w});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, x, w, offsets, dy = output.slot()] {
      if (!dy->is_set()) return;
      if (w.needs_gradient()) {
        auto [d_w, accum] = w.slot()->target();
        kernels::grouped_matmul_weight_gradient(stream, d_w, x.value(), dy->gradient(), offsets,
                                                accum);
      }
      if (x.needs_gradient()) {
        auto [d_x, accum] = x.slot()->target();
        kernels::grouped_matmul(stream, d_x, dy->gradient(), w.value(), Transpose::yes, offsets,
                                accum);
      }
    });
  }
  return output;
}

}  // namespace sw::ops
