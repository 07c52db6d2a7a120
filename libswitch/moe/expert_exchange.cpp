#include "libswitch/moe/expert_exchange.h"

#include <algorithm>
#include <numeric>

#include "libswitch/base/profile.h"
#include "libswitch/base/sum_tree.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/matmul.h"

namespace sw {
namespace {

using kernels::Transpose;

// Rows of source number `source`, of all that were received.
struct SourceRows {
  int64_t begin = 0, end = 0;
};

template <class Fn>
void for_each_source(const std::vector<Tensor>& offsets, const Fn& fn) {
  int64_t begin = 0;
  for (const Tensor& of_source : offsets) {
    const int64_t rows = of_source.data<int32_t>()[of_source.elements() - 1];
    fn(of_source, SourceRows{begin, begin + rows});
    begin += rows;
  }
}

Tensor move_rows(const Context& context, const Tensor& rows, std::span<const int64_t> send,
                 std::span<const int64_t> receive) {
  const int64_t arriving = std::accumulate(receive.begin(), receive.end(), int64_t{0});
  Tensor out = Tensor::empty({arriving, rows.size(1)}, rows.dtype(), rows.device());
  context.mesh->expert().all_to_all_rows(out, receive, rows, send);
  return out;
}

// An all-to-all of rows whose backward pass is the way back.
Var move_rows(Context& context, const Var& rows, const std::vector<int64_t>& send,
              const std::vector<int64_t>& receive, const char* forward, const char* backward) {
  ProfileRegion region(kNoScope, forward);
  region.add(0, 2 * static_cast<double>(rows.value().bytes()));
  Var output = context.output(move_rows(context, rows.value(), send, receive), {&rows});
  if (context.records(output)) {
    context.tape->record([context = context, d_rows = rows.slot(), d_out = output.slot(), send,
                          receive, backward] {
      // No rank may stay away, even if nothing came back to it.
      if (!d_out->is_set()) {
        Tensor zeros = d_out->target().tensor;
        kernels::fill(context.stream, zeros, 0.0);
      }
      const ProfileRegion region(backward, 0, 2 * static_cast<double>(d_out->gradient().bytes()));
      d_rows->adopt(context.stream, move_rows(context, d_out->gradient(), receive, send));
    });
  }
  return output;
}

double product_flops(const Tensor& x, const Tensor& w) {
  return 2.0 * static_cast<double>(x.elements()) * static_cast<double>(w.size(2));
}

}  // namespace

ExpertExchange exchange_counts(Group& group, const RoutingPlan& plan) {
  const int64_t ranks = group.size(), local = plan.experts / ranks;
  SW_CHECK(local * ranks == plan.experts, internal, "expert exchange: {} experts over {} ranks",
           plan.experts, ranks);
  const Tensor counts =
      Tensor::from({plan.experts}, std::vector<int32_t>(plan.kept.begin(), plan.kept.end()));
  Tensor received = Tensor::empty({plan.experts}, DType::i32);  // [X, E/X]
  group.all_to_all(received, counts);

  ExpertExchange exchange;
  for (int64_t r = 0; r < ranks; ++r) {
    const int64_t* sent = plan.kept.data() + r * local;
    const int32_t* got = received.data<int32_t>() + r * local;
    exchange.send_rows.push_back(std::accumulate(sent, sent + local, int64_t{0}));
    exchange.receive_rows.push_back(std::accumulate(got, got + local, int64_t{0}));
    exchange.rows += exchange.receive_rows.back();
    std::vector<int32_t> offsets(static_cast<size_t>(local) + 1, 0);
    for (int64_t e = 0; e < local; ++e) {
      offsets[static_cast<size_t>(e) + 1] = offsets[static_cast<size_t>(e)] + got[e];
    }
    exchange.offsets.push_back(Tensor::from({local + 1}, offsets));
  }
  return exchange;
}

namespace ops {

Var send_to_experts(Context& context, const Var& rows, const ExpertExchange& exchange) {
  return move_rows(context, rows, exchange.send_rows, exchange.receive_rows, "send forward",
                   "send backward");
}

Var return_from_experts(Context& context, const Var& rows, const ExpertExchange& exchange) {
  return move_rows(context, rows, exchange.receive_rows, exchange.send_rows, "return forward",
                   "return backward");
}

Var exchanged_expert_linear(Context& context, const Var& x, const Var& w,
                            const ExpertExchange& exchange) {
  SW_CHECK(w.value().rank() == 3 && x.value().rank() == 2 && x.value().size(1) == w.value().size(1),
           internal, "expert linear: x {} does not fit w {}", x.shape().str(), w.shape().str());
  const auto products = [stream = context.stream](Tensor& out, const Tensor& in,
                                                  const Tensor& weights, Transpose transpose,
                                                  const std::vector<Tensor>& offsets, Accum accum) {
    for_each_source(offsets, [&](const Tensor& of_source, SourceRows rows) {
      Tensor part = out.slice(rows.begin, rows.end);
      kernels::grouped_matmul(stream, part, in.slice(rows.begin, rows.end), weights, transpose,
                              of_source, accum);
    });
  };
  ProfileRegion region("forward", product_flops(x.value(), w.value()));
  Tensor y =
      Tensor::empty({x.value().size(0), w.value().size(2)}, x.value().dtype(), context.device());
  products(y, x.value(), w.value(), Transpose::no, exchange.offsets, Accum::write);
  Var output = context.output(std::move(y), {&x, &w});
  if (context.records(output)) {
    context.tape->record([context = context, x, w, offsets = exchange.offsets, products,
                          dy = output.slot(), scope = profile_scope()] {
      if (!dy->is_set()) {
        Tensor zeros = dy->target().tensor;
        kernels::fill(context.stream, zeros, 0.0);
      }
      const double flops = product_flops(x.value(), w.value());
      if (w.needs_gradient()) {
        const ProfileRegion region(scope, "d_weight", flops);
        if (context.expert_gradients != nullptr) {
          context.expert_gradients->add(context.stream, w.slot(), x.value(), dy->gradient(),
                                        offsets);
        } else {
          ExpertGradients(1, 1).add(context.stream, w.slot(), x.value(), dy->gradient(), offsets);
        }
      }
      if (x.needs_gradient()) {
        const ProfileRegion region(scope, "d_input", flops);
        auto [d_x, accum] = x.slot()->target();
        products(d_x, dy->gradient(), w.value(), Transpose::yes, offsets, accum);
      }
    });
  }
  return output;
}

}  // namespace ops

ExpertGradients::~ExpertGradients() = default;

void ExpertGradients::add(const Stream& stream, const GradientSlotPtr& slot, const Tensor& x,
                          const Tensor& d_y, const std::vector<Tensor>& offsets) {
  auto found = std::find_if(pending_.begin(), pending_.end(),
                            [&](const Pending& pending) { return pending.slot == slot; });
  if (found == pending_.end()) found = pending_.insert(found, Pending{slot, {}});
  found->passes.push_back({x, d_y, offsets});
  if (static_cast<int64_t>(found->passes.size()) < shards_ * accumulate_) return;
  form(stream, *found);
  pending_.erase(found);
}

void ExpertGradients::form(const Stream& stream, Pending& pending) const {
  const auto add_tensors = [&stream](Tensor& left, const Tensor& right) {
    kernels::scale(stream, left, right, 1.0, Accum::add);
  };
  SumTree<Tensor, decltype(add_tensors)> tree(add_tensors);
  const size_t sources = pending.passes.front().offsets.size();
  std::vector<int64_t> first(pending.passes.size(), 0);  // row of the source at hand, by pass
  for (size_t source = 0; source < sources; ++source) {
    for (int64_t shard = 0; shard < shards_; ++shard) {
      Tensor leaf = Tensor::empty(pending.slot->shape(), pending.slot->dtype(), stream.device);
      for (int64_t micro = 0; micro < accumulate_; ++micro) {
        const auto pass = static_cast<size_t>(shard * accumulate_ + micro);
        const Operands& operands = pending.passes[pass];
        const Tensor& offsets = operands.offsets[source];
        const int64_t begin = first[pass];
        const int64_t end = begin + offsets.data<int32_t>()[offsets.elements() - 1];
        kernels::grouped_matmul_weight_gradient(stream, leaf, operands.x.slice(begin, end),
                                                operands.d_y.slice(begin, end), offsets,
                                                micro == 0 ? Accum::write : Accum::add);
        first[pass] = end;
      }
      tree.push(std::move(leaf));
    }
  }
  pending.slot->adopt(stream, tree.finish());
}

}  // namespace sw
