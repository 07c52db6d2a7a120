#include "libswitch/ops/attention.h"

#include "libswitch/base/profile.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/embedding.h"

namespace sw::ops {
namespace {

// Of one product of queries and keys, causal or not: what is masked counts as computed.
double product_flops(const kernels::AttentionParams& p) {
  return 2.0 * static_cast<double>(p.batch * p.heads * p.head_dim) *
         static_cast<double>(p.query_length) * static_cast<double>(p.key_length);
}
double bytes_of(const Var& q, const Var& k, const Var& v) {
  return static_cast<double>(q.value().bytes() + k.value().bytes() + v.value().bytes());
}

}  // namespace

Var attention(Context& context, const Var& q, const Var& k, const Var& v, const Var& bias,
              const Tensor& query_segments, const Tensor& key_segments,
              const kernels::AttentionParams& params) {
  const DType dtype = q.value().dtype();
  const int64_t width = params.heads * params.head_dim;
  check_tensor("attention", "q", q.value(), {params.batch * params.query_length, width}, dtype);
  check_tensor("attention", "k", k.value(), {params.batch * params.key_length, width}, dtype);
  check_tensor("attention", "v", v.value(), {params.batch * params.key_length, width}, dtype);
  const ProfileRegion region("core forward", 2 * product_flops(params),
                             bytes_of(q, k, v) + static_cast<double>(q.value().bytes()));
  Tensor out = Tensor::empty(q.shape(), dtype, context.device());
  Tensor log_sum_exp = Tensor::empty({params.batch, params.heads, params.query_length},
                                     master_dtype(dtype), context.device());
  kernels::attention_forward(context.stream, out, log_sum_exp, q.value(), k.value(), v.value(),
                             bias.value(), query_segments, key_segments, params);
  Var output = context.output(out, {&q, &k, &v, &bias});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, q, k, v, bias, query_segments, key_segments, out,
                          log_sum_exp, params, dy = output.slot(), scope = profile_scope()] {
      if (!dy->is_set()) return;
      // Four products are the gradient; recomputing the weights is not counted.
      const ProfileRegion region(scope, "core backward", 4 * product_flops(params),
                                 2 * bytes_of(q, k, v) + 2 * static_cast<double>(out.bytes()));
      auto [d_q, accum_q] = q.slot()->target();
      auto [d_k, accum_k] = k.slot()->target();
      auto [d_v, accum_v] = v.slot()->target();
      Tensor d_bias;
      if (bias.needs_gradient()) {
        d_bias = Tensor::empty(bias.shape(), bias.value().dtype(), bias.value().device());
      }
      kernels::attention_backward(stream, d_q, accum_q, d_k, accum_k, d_v, accum_v, d_bias,
                                  q.value(), k.value(), v.value(), bias.value(), query_segments,
                                  key_segments, out, log_sum_exp, dy->gradient(), params);
      if (bias.needs_gradient()) bias.slot()->adopt(stream, d_bias);
    });
  }
  return output;
}

Var relative_bias(Context& context, const Var& table, const Tensor& bucket_of) {
  const ProfileRegion region("relative bias forward");
  Tensor bias = Tensor::empty({table.value().size(0), bucket_of.size(0)}, table.value().dtype(),
                              context.device());
  kernels::relative_bias_forward(context.stream, bias, table.value(), bucket_of);
  Var output = context.output(std::move(bias), {&table});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, table = table.slot(), bucket_of, d_bias = output.slot()] {
          if (!d_bias->is_set()) return;
          const ProfileRegion region("relative bias backward");
          auto [d_table, accum] = table->target();
          kernels::relative_bias_backward(stream, d_table, accum, d_bias->gradient(), bucket_of);
        });
  }
  return output;
}

}  // namespace sw::ops
