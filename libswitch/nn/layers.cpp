#include "libswitch/nn/layers.h"

#include "libswitch/base/profile.h"
#include "libswitch/ops/activation.h"
#include "libswitch/ops/attention.h"
#include "libswitch/ops/linear.h"
#include "libswitch/ops/model_parallel.h"

namespace sw {
namespace {

Var weight(const Parameter* parameter) { return parameter->var(); }

// A product under the name it has in profiles.
Var linear(Context& context, const Var& x, const Parameter* w, const char* name) {
  const ProfileScope scope(name);
  return ops::linear(context, x, weight(w));
}

// What lies between a feed-forward layer's products; `gate` is that of wi_1, or none.
Var activated(Context& context, const ModelConfig& config, const Var& hidden, const Var& gate) {
  const Activation activation = config.activation;
  if (gate.defined()) return ops::gated(context, hidden, gate, curve_of(activation));
  if (activation == Activation::relu) return ops::relu(context, hidden);
  return ops::activation(context, hidden, curve_of(activation));
}

int64_t rows_per_mask(const ModelConfig& config, int64_t length) {
  return config.conventions.dropout_shared_over_length ? length : 1;
}

}  // namespace

Var AttentionLayer::forward(Context& context, const ModelConfig& config, const Var& x,
                            const Var& keys, const Var& bias, const Tensor& query_segments,
                            const Tensor& key_segments, int64_t batch, int64_t query_length,
                            int64_t key_length, bool causal) const {
  const MeshPart part = context.mesh->model_part();
  const Var local_x = ops::copy_to_model(context, x);
  const Var& source = keys.defined() ? keys : local_x;
  const Var queries = linear(context, local_x, q, "attention.q");  // [B·T, H/M·Dkv]
  const Var k_rows = linear(context, source, k, "attention.k");    // [B·S, H/M·Dkv]
  const Var v_rows = linear(context, source, v, "attention.v");    // [B·S, H/M·Dkv]
  const ProfileScope scope(causal           ? "attention.decoder"
                           : bias.defined() ? "attention.encoder"
                                            : "attention.cross");
  kernels::AttentionParams params;
  params.batch = batch, params.heads = part.count(config.heads), params.head_dim = config.d_kv;
  params.first_head = part.begin(config.heads), params.total_heads = config.heads;
  params.query_length = query_length, params.key_length = key_length, params.causal = causal;
  params.dropout = context.training ? config.dropout : 0.0;
  params.dropout_key = context.key(RngPurpose::dropout, site(ordinal, Site::attention_weights));
  params.first_row = context.first_row;
  params.share_over_queries = config.conventions.dropout_shared_over_length;
  const Var mixed =
      ops::attention(context, queries, k_rows, v_rows, bias, query_segments, key_segments, params);
  const Var out =
      ops::sum_over_model(context, linear(context, mixed, o, "attention.o"));  // [B·T, D]
  return ops::dropout(context, out, config.dropout, site(ordinal, Site::sublayer_output),
                      context.first_row * query_length, rows_per_mask(config, query_length));
}

Var FeedForwardLayer::forward(Context& context, const ModelConfig& config, const Var& x,
                              int64_t length) const {
  const ProfileScope scope("ffn");
  const Var local_x = ops::copy_to_model(context, x);
  Var hidden = linear(context, local_x, wi, "ffn.wi");  // [N, F/M]
  hidden = activated(context, config, hidden,
                     gate != nullptr ? linear(context, local_x, gate, "ffn.wi") : Var());
  hidden = ops::dropout(context, hidden, config.dropout, site(ordinal, Site::hidden),
                        context.first_row * length, rows_per_mask(config, length),
                        context.mesh->model_part());
  const Var out = ops::sum_over_model(context, linear(context, hidden, wo, "ffn.wo"));  // [N, D]
  return ops::dropout(context, out, config.dropout, site(ordinal, Site::sublayer_output),
                      context.first_row * length, rows_per_mask(config, length));
}

SwitchLayer::Output SwitchLayer::forward(Context& context, const ModelConfig& config, const Var& x,
                                         const ModelInput& input, const Tensor& nonpadding,
                                         int64_t nonpadding_total, int64_t length) const {
  const ProfileScope scope("experts");
  const int64_t first_token = context.first_row * length;
  Var router_x =
      ops::dropout(context, x, config.input_dropout, site(ordinal, Site::router), first_token, 1);
  router_x = ops::router_input(context, router_x, config.jitter, site(ordinal, Site::router_input),
                               first_token);
  Var logits = linear(context, router_x, router_weight, "router");  // [N, E]
  if (router_bias != nullptr) logits = ops::add_bias(context, logits, weight(router_bias));

  RouterInput routing_input;
  routing_input.nonpadding = nonpadding;
  routing_input.batch_rows = input.rows;
  routing_input.shards = input.shards;
  routing_input.nonpadding_total = nonpadding_total;
  routing_input.training = context.training;
  routing_input.first_token = first_token;
  routing_input.key = context.key(RngPurpose::routing, site(ordinal, Site::router));
  const ops::Routed routed = ops::route(context, *router, logits, std::move(routing_input));
  const ops::Routing& routing = *routed.routing;

  const Var rows = ops::dispatch(context, x, routing.plan);                  // [R, D]
  const Var out = run_experts(context, config, rows, routing, first_token);  // [R, D]
  const bool keep_input = config.conventions.dropped_gate == DroppedGate::kept;
  const Var y =
      ops::combine(context, out, routed.gate, routing.plan, keep_input ? x : Var());  // [N, D]
  return {ops::dropout(context, y, config.dropout, site(ordinal, Site::sublayer_output),
                       first_token, rows_per_mask(config, length)),
          routed.routing};
}

Var SwitchLayer::run_experts(Context& context, const ModelConfig& config, const Var& rows,
                             const ops::Routing& routing, int64_t first_token) const {
  const bool exchanged = context.mesh->expert().size() > 1;
  const auto product = [&](const Var& in, const Parameter* w, const char* product_name) {
    const ProfileScope scope(product_name);
    return exchanged ? ops::exchanged_expert_linear(context, in, weight(w), routing.exchange)
                     : ops::expert_linear(context, in, weight(w), routing.plan.offsets);
  };
  // Ranks of a model group hold the same rows: each sends its share of the columns.
  Var in;
  if (exchanged) {
    in = ops::slice_columns_over_model(context, rows);         // [R, D/M]
    in = ops::send_to_experts(context, in, routing.exchange);  // [R', D/M]
    in = ops::gather_columns_to_model(context, in);            // [R', D]
  } else {
    in = ops::copy_to_model(context, rows);
  }
  Var hidden = product(in, wi, "experts.wi");  // [R', F]
  hidden =
      activated(context, config, hidden, gate != nullptr ? product(in, gate, "experts.wi") : Var());
  hidden = ops::expert_dropout(context, hidden, config.expert_dropout, site(ordinal, Site::hidden),
                               routing, first_token);
  Var out = product(hidden, wo, "experts.wo");  // [R', D], under the model axis a share of it
  if (!exchanged) return ops::sum_over_model(context, out);
  out = ops::sum_and_slice_over_model(context, out);               // [R', D/M]
  out = ops::return_from_experts(context, out, routing.exchange);  // [R, D/M]
  return ops::gather_columns_over_model(context, out);             // [R, D]
}

RouterConfig router_config(const ModelConfig& config) {
  const Conventions& c = config.conventions;
  RouterConfig router;
  router.kind = router_kind_from(config.router);
  router.experts = config.experts;
  router.capacity_rule = c.capacity;
  router.capacity_factor_train = config.capacity_factor;
  router.capacity_factor_eval = config.eval_capacity_factor;
  router.min_capacity = config.min_capacity;
  router.expert_capacity = config.expert_capacity;
  router.group_rule = c.groups;
  router.max_group_size = config.max_group_size;
  router.padding_rule = c.padding;
  router.selection = selection_policy_from(config.selection);
  router.dropped_gate = c.dropped_gate;
  router.second_train = router.second_eval = second_policy_from(config.second_policy);
  router.second_threshold = config.second_threshold;
  router.ntlb_k = config.ntlb_k;
  router.count_all_choices = c.count_all_choices;
  router.dropped_as_expert_0 = c.dropped_as_expert_0;
  return router;
}

}  // namespace sw
