#include "libswitch/generate/sparse_layer.h"

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/kernels/activation.h"
#include "libswitch/kernels/bias.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/few_rows.h"
#include "libswitch/kernels/matmul.h"
#include "libswitch/kernels/routing.h"
#include "libswitch/moe/expert_exchange.h"
#include "libswitch/nn/layers.h"

namespace sw {
namespace {

const Stream kCpu{};

bool draws(const RouterConfig& router) {
  return (router.kind == RouterKind::top2 && router.second_eval == SecondPolicy::random) ||
         (router.kind == RouterKind::switch_top1 && router.selection == SelectionPolicy::sample);
}

}  // namespace

SparseLayers::SparseLayers(const ModelConfig& config, DType compute, ExpertSource& experts,
                           const Mesh& mesh, bool use_capacity, uint64_t seed)
    : config_(config), experts_(experts), mesh_(mesh), seed_(seed) {
  if (config.experts == 0) return;
  RouterConfig router = router_config(config);
  router.bf16_gate = config.conventions.bf16_gate && compute == DType::bf16;
  if (!use_capacity) router.capacity_rule = CapacityRule::unlimited;
  by_run_ = draws(router) || (use_capacity && router.group_rule == GroupRule::row);
  if (!use_capacity) router.group_rule = GroupRule::batch;
  if (!use_capacity || by_run_) router.max_group_size = int64_t{1} << 40;  // one group
  router_ = make_router(router);
}

namespace {

// Puts the plan of one run into the plan of all, whose tokens from `first` on are its own.
void append_plan(const RoutingPlan& part, int64_t first, RoutingPlan& all,
                 std::vector<int32_t>& filled) {
  const int64_t k = part.choices;
  for (int64_t i = 0; i < part.tokens * k; ++i) {
    const int64_t to = first * k + i;
    const int32_t expert = part.expert.data<int32_t>()[i];
    const bool kept = part.slot.data<int32_t>()[i] >= 0;
    all.expert.data<int32_t>()[to] = expert;
    all.slot.data<int32_t>()[to] = kept ? filled[static_cast<size_t>(expert)]++ : -1;
    all.gate.data<float>()[to] = part.gate.data<float>()[i];
  }
  all.routed_tokens += part.routed_tokens;
  all.dropped_tokens += part.dropped_tokens;
  for (size_t e = 0; e < part.chosen.size(); ++e) all.chosen[e] += part.chosen[e];
}

}  // namespace

RoutingPlan SparseLayers::route(const DecodingWeights::Block& block, const Tensor& x,
                                std::span<const TokenRun> runs, bool decoder) {
  const int64_t n = x.size(0), experts = config_.experts;
  Tensor in = x;
  if (x.dtype() != DType::f32) {
    in = Tensor::empty(x.shape(), DType::f32);
    kernels::cast(kCpu, in, x);
  }
  Tensor logits = Tensor::empty({n, experts}, DType::f32);
  const kernels::FewRowsProduct product{logits, in, block.router};
  kernels::few_rows_matmul(kCpu, std::span(&product, 1));
  if (block.router_bias) kernels::add_bias(kCpu, logits, logits, block.router_bias);
  RouterInput input;
  input.probabilities = Tensor::empty({n, experts}, DType::f32);
  input.log_z = Tensor::empty({n}, DType::f32);
  kernels::router_softmax(kCpu, input.probabilities, input.log_z, logits);
  const uint64_t layer = static_cast<uint64_t>(block.layer) * 2 + (decoder ? 1 : 0);
  if (!by_run_) {
    input.key = rng_key(seed_, RngPurpose::routing, layer);
    return router_->assign(input);
  }
  RoutingPlan all;
  std::vector<int32_t> filled(static_cast<size_t>(experts), 0);
  int64_t first = 0;
  for (const TokenRun& run : runs) {
    RouterInput own;
    own.probabilities = input.probabilities.slice(first, first + run.count);
    own.log_z = input.log_z.slice(first, first + run.count);
    own.first_token = run.position;
    own.key = rng_key(seed_, RngPurpose::routing, layer, run.ordinal);
    const RoutingPlan part = router_->assign(own);
    if (first == 0) {
      all.tokens = n, all.experts = experts, all.choices = part.choices;
      all.groups = 1, all.group_size = n, all.capacity = n * part.choices;
      all.expert = Tensor::empty({n, part.choices}, DType::i32);
      all.slot = Tensor::empty({n, part.choices}, DType::i32);
      all.gate = Tensor::empty({n, part.choices}, DType::f32);
      all.chosen.assign(static_cast<size_t>(experts), 0);
    }
    append_plan(part, first, all, filled);
    first += run.count;
  }
  build_rows(all);
  return all;
}

void activate(Activation activation, Tensor& hidden, const Tensor& gate) {
  if (gate) {
    kernels::gated_forward(kCpu, hidden, hidden, gate, curve_of(activation));
  } else if (activation == Activation::relu) {
    kernels::relu_forward(kCpu, hidden, hidden);
  } else {
    kernels::curve_forward(kCpu, hidden, hidden, curve_of(activation));
  }
}

Tensor SparseLayers::run_experts(int64_t layer, const Tensor& rows,
                                 const std::vector<Segment>& segments, bool few) {
  const int64_t n = rows.size(0);
  Tensor out = Tensor::empty({n, config_.d_model}, rows.dtype());
  Tensor hidden = Tensor::empty({n, config_.d_ff}, rows.dtype()), gate;
  if (is_gated(config_.activation)) gate = Tensor::empty(hidden.shape(), rows.dtype());
  const auto at_once = static_cast<size_t>(
      std::min<int64_t>(experts_.at_once(), static_cast<int64_t>(segments.size())));
  std::vector<kernels::FewRowsProduct> products;  // in the encoder of plain matrices, not panels
  const auto multiply = [&] {
    if (few) {
      kernels::few_rows_matmul(kCpu, products);
    } else {
      for (kernels::FewRowsProduct& p : products) {
        kernels::matmul(kCpu, p.c, p.a, kernels::Transpose::no, p.panels, kernels::Transpose::no,
                        Accum::write);
      }
    }
    products.clear();
  };
  for (size_t first = 0; first < segments.size(); first += at_once) {
    const auto held =
        std::span(segments).subspan(first, std::min(at_once, segments.size() - first));
    std::vector<ExpertWeights> weights;
    for (const Segment& s : held) weights.push_back(experts_.expert(layer, s.expert));
    for (size_t i = 0; i < held.size(); ++i) {
      const int64_t begin = held[i].begin, end = held[i].end;
      products.push_back({hidden.slice(begin, end), rows.slice(begin, end), weights[i].wi});
      if (gate) {
        products.push_back({gate.slice(begin, end), rows.slice(begin, end), weights[i].gate});
      }
    }
    multiply();
    // The segments held are neighbours.
    const int64_t begin = held.front().begin, end = held.back().end;
    Tensor activated = hidden.slice(begin, end);
    activate(config_.activation, activated, gate ? gate.slice(begin, end) : Tensor());
    for (size_t i = 0; i < held.size(); ++i) {
      const int64_t from = held[i].begin, to = held[i].end;
      products.push_back({out.slice(from, to), hidden.slice(from, to), weights[i].wo});
    }
    multiply();
  }
  return out;
}

void SparseLayers::forward(Tensor& out, const DecodingWeights::Block& block, const Tensor& x,
                           std::span<const TokenRun> runs, bool decoder, bool few) {
  const RoutingPlan plan = route(block, x, runs, decoder);
  Tensor rows = Tensor::empty({plan.rows, config_.d_model}, x.dtype());
  kernels::dispatch_forward(kCpu, rows, x, plan.row_token);
  std::vector<Segment> segments;
  const auto add_segments = [&](const Tensor& offsets, int64_t experts, int64_t first_row) {
    const auto* o = offsets.data<int32_t>();
    for (int64_t e = 0; e < experts; ++e) {
      if (o[e + 1] > o[e]) segments.push_back({first_row + o[e], first_row + o[e + 1], e});
    }
  };
  Tensor answers;
  if (mesh_.expert().size() == 1) {
    add_segments(plan.offsets, config_.experts, 0);
    answers = run_experts(block.layer, rows, segments, few);
  } else {
    const ExpertExchange exchange = exchange_counts(mesh_.expert(), plan);
    Context context;
    context.mesh = &mesh_;
    context.compute = x.dtype();
    const Var received = ops::send_to_experts(context, Var(rows), exchange);
    int64_t first_row = 0;
    for (size_t source = 0; source < exchange.offsets.size(); ++source) {
      add_segments(exchange.offsets[source], mesh_.expert_part().count(config_.experts), first_row);
      first_row += exchange.receive_rows[source];
    }
    const Tensor computed = run_experts(block.layer, received.value(), segments, few);
    answers = ops::return_from_experts(context, Var(computed), exchange).value();
  }
  const bool keep_input = config_.conventions.dropped_gate == DroppedGate::kept;
  kernels::combine_forward(kCpu, out, answers, plan.gate, plan.row_of, keep_input ? x : Tensor());
}

}  // namespace sw
