#include "libswitch/moe/route.h"

#include <limits>

#include "libswitch/base/profile.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/routing.h"
#include "libswitch/kernels/row_dropout.h"

namespace sw::ops {
namespace {

// `tensors` of x's size are read or written.
double traffic(int tensors, const Tensor& x) { return tensors * static_cast<double>(x.bytes()); }

}  // namespace

Var router_input(Context& context, const Var& x, double jitter, uint64_t site, int64_t first_row) {
  const ProfileRegion region(kNoScope, "router input forward", 0, traffic(2, x.value()));
  const double epsilon = context.training ? jitter : 0.0;
  const RngKey key = context.key(RngPurpose::jitter, site);
  Tensor y = Tensor::empty(x.shape(), master_dtype(x.value().dtype()), context.device());
  kernels::jitter_cast(context.stream, y, Accum::write, x.value(), epsilon, key, first_row);
  Var output = context.output(std::move(y), {&x});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, dx = x.slot(), dy = output.slot(), epsilon, key, first_row] {
          if (!dy->is_set()) return;
          const ProfileRegion region("router input backward", 0, traffic(3, dy->gradient()));
          auto [d_x, accum] = dx->target();
          kernels::jitter_cast(stream, d_x, accum, dy->gradient(), epsilon, key, first_row);
        });
  }
  return output;
}

namespace {

// Logits that are not finite spoil the step. Notes it and puts an even router in their place.
void replace_fault(Context& context, Tensor& probabilities, Tensor& log_z) {
  if (context.fault == nullptr) return;
  try {
    check_finite_logits(log_z);
  } catch (const Error& error) {
    if (!context.fault->found()) context.fault->text = error.what();
    kernels::fill(context.stream, probabilities, 1.0 / static_cast<double>(probabilities.size(1)));
    kernels::fill(context.stream, log_z, 0.0);
  }
}

std::shared_ptr<Routing> decide(Context& context, const Router& router, const Tensor& probabilities,
                                const Tensor& log_z, RouterInput input) {
  if (context.replay != nullptr && context.replaying) {
    return std::const_pointer_cast<Routing>(
        std::static_pointer_cast<const Routing>(context.replay->take()));
  }
  auto routing = std::make_shared<Routing>();
  input.probabilities = probabilities;
  input.log_z = log_z;
  routing->plan = router.assign(input);
  routing->loss_terms = router.loss_terms(input, routing->plan);
  routing->input = std::move(input);
  if (context.mesh->expert().size() > 1) {
    routing->exchange = exchange_counts(context.mesh->expert(), routing->plan);
  }
  if (context.replay != nullptr) context.replay->put(routing);
  return routing;
}

}  // namespace

Routed route(Context& context, const Router& router, const Var& logits, RouterInput input) {
  const ProfileRegion region(kNoScope, "route forward", 0, traffic(2, logits.value()));
  const Shape shape = logits.shape();
  const DType dtype = logits.value().dtype();
  Tensor probabilities = Tensor::empty(shape, dtype, context.device());
  Tensor log_z = Tensor::empty({shape[0]}, dtype, context.device());
  kernels::router_softmax(context.stream, probabilities, log_z, logits.value());
  replace_fault(context, probabilities, log_z);

  Routed routed;
  routed.routing = decide(context, router, probabilities, log_z, std::move(input));
  routed.gate = context.output(routed.routing->plan.gate, {&logits});
  if (context.records(routed.gate)) {
    context.tape->record([stream = context.stream, &router, routing = routed.routing,
                          d_logits = logits.slot(), gate = routed.gate.slot()] {
      const ProfileRegion region("route backward", 0, traffic(3, routing->input.probabilities));
      const Tensor& probabilities = routing->input.probabilities;
      const Tensor& log_z = routing->input.log_z;
      Tensor d_probabilities =
          Tensor::empty(probabilities.shape(), probabilities.dtype(), probabilities.device());
      Tensor d_log_z = Tensor::zeros(log_z.shape(), log_z.dtype(), log_z.device());
      if (gate->is_set()) {
        router.gate_backward(routing->plan, probabilities, gate->gradient(), d_probabilities,
                             Accum::write);
      } else {
        d_probabilities =
            Tensor::zeros(probabilities.shape(), probabilities.dtype(), probabilities.device());
      }
      if (!routing->loss_gradient.d_probability.empty()) {
        router_losses_backward(routing->loss_gradient, 1.0, log_z, routing->input.nonpadding,
                               d_probabilities, d_log_z);
      }
      Tensor d = Tensor::empty(probabilities.shape(), probabilities.dtype(), stream.device);
      kernels::router_softmax_backward(stream, d, probabilities, d_probabilities, d_log_z);
      d_logits->adopt(stream, d);
    });
  }
  return routed;
}

Var dispatch(Context& context, const Var& x, const RoutingPlan& plan) {
  ProfileRegion region(kNoScope, "dispatch forward");
  Tensor rows = Tensor::empty({plan.rows, x.value().size(1)}, x.value().dtype(), context.device());
  region.add(0, traffic(2, rows));
  kernels::dispatch_forward(context.stream, rows, x.value(), plan.row_token);
  Var output = context.output(std::move(rows), {&x});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, dx = x.slot(), row_of = plan.row_of, dy = output.slot()] {
          if (!dy->is_set()) return;
          const ProfileRegion region("dispatch backward", 0, traffic(3, dy->gradient()));
          auto [d_x, accum] = dx->target();
          kernels::dispatch_backward(stream, d_x, accum, dy->gradient(), row_of);
        });
  }
  return output;
}

namespace {

// For every row that this rank's experts see, the global index of its token and choice.
Tensor global_choices(Context& context, const Routing& routing, int64_t first_token) {
  const RoutingPlan& plan = routing.plan;
  SW_CHECK((first_token + plan.tokens) * plan.choices <= std::numeric_limits<int32_t>::max(), usage,
           "expert dropout: more than 2^31 tokens and choices in a step's batch");
  Tensor own = Tensor::empty({plan.rows, 1}, DType::i32);
  const int32_t* row_of = plan.row_of.data<int32_t>();
  auto* index = own.data<int32_t>();
  const auto first = static_cast<int32_t>(first_token * plan.choices);
  for (int64_t i = 0; i < plan.tokens * plan.choices; ++i) {
    if (row_of[i] >= 0) index[row_of[i]] = first + static_cast<int32_t>(i);
  }
  Group& group = context.mesh->expert();
  if (group.size() == 1) return own.view({plan.rows});
  const ExpertExchange& exchange = routing.exchange;
  Tensor received = Tensor::empty({exchange.rows, 1}, DType::i32);
  group.all_to_all_rows(received, exchange.receive_rows, own, exchange.send_rows);
  return received.view({exchange.rows});
}

}  // namespace

Var expert_dropout(Context& context, const Var& hidden, double rate, uint64_t site,
                   const Routing& routing, int64_t first_token) {
  if (!context.training || rate == 0) return hidden;
  const ProfileRegion region(kNoScope, "expert dropout forward", 0, traffic(2, hidden.value()));
  const Tensor row_index = global_choices(context, routing, first_token);
  const MeshPart columns = context.mesh->model_part();
  const int64_t total_columns = hidden.value().size(1) * columns.parts;
  const kernels::RowDropoutParams params{rate, context.key(RngPurpose::dropout, site), 0,
                                         columns.begin(total_columns), total_columns};
  Tensor y = Tensor::empty(hidden.shape(), hidden.value().dtype(), context.device());
  kernels::row_dropout(context.stream, y, Accum::write, hidden.value(), row_index, params);
  Var output = context.output(std::move(y), {&hidden});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, dx = hidden.slot(), dy = output.slot(), row_index, params] {
          if (!dy->is_set()) return;
          const ProfileRegion region("expert dropout backward", 0, traffic(2, dy->gradient()));
          auto [d_x, accum] = dx->target();
          kernels::row_dropout(stream, d_x, accum, dy->gradient(), row_index, params);
        });
  }
  return output;
}

Var combine(Context& context, const Var& rows, const Var& gate, const RoutingPlan& plan,
            const Var& dropped) {
  const ProfileRegion region(kNoScope, "combine forward", 0, traffic(2, rows.value()));
  Tensor y =
      Tensor::empty({plan.tokens, rows.value().size(1)}, rows.value().dtype(), context.device());
  kernels::combine_forward(context.stream, y, rows.value(), gate.value(), plan.row_of,
                           dropped.value());
  Var output = context.output(std::move(y), {&rows, &gate, &dropped});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, rows, gate, dropped, row_of = plan.row_of,
                          row_token = plan.row_token, dy = output.slot()] {
      if (!dy->is_set()) return;
      const ProfileRegion region("combine backward", 0, traffic(3, rows.value()));
      Tensor d_rows = Tensor::empty(rows.shape(), rows.value().dtype(), stream.device);
      Tensor d_gate = Tensor::empty(gate.shape(), gate.value().dtype(), stream.device);
      GradientSlot::Target d_dropped{{}, Accum::write};
      if (dropped.needs_gradient()) d_dropped = dropped.slot()->target();
      kernels::combine_backward(stream, d_rows, d_gate, d_dropped.tensor, d_dropped.accum,
                                rows.value(), gate.value(), row_of, row_token, dropped.value(),
                                dy->gradient());
      if (rows.needs_gradient()) rows.slot()->adopt(stream, d_rows);
      if (gate.needs_gradient()) gate.slot()->adopt(stream, d_gate);
    });
  }
  return output;
}

}  // namespace sw::ops
