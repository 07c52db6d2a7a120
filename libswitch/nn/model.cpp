#include "libswitch/nn/model.h"

#include <cmath>

#include "libswitch/nn/relative_bias.h"
#include "libswitch/ops/activation.h"
#include "libswitch/ops/attention.h"
#include "libswitch/ops/embedding.h"
#include "libswitch/ops/model_parallel.h"
#include "libswitch/ops/norm.h"
#include "libswitch/tape/checkpoint.h"

namespace sw {

Recompute recompute_from(const std::string& name) {
  if (name == "none") return Recompute::none;
  if (name == "layer") return Recompute::layer;
  if (name == "full") return Recompute::full;
  fail(ErrorKind::usage, "recompute: unknown choice '{}', expected none, layer or full", name);
}

Model::Model(const ModelConfig& config, DType compute, Device device, const Mesh& mesh)
    : config_(config), compute_(compute), device_(device), mesh_(&mesh) {
  for (ParameterSpec& spec : parameter_specs(config)) {
    parameters_.push_back(std::make_unique<Parameter>(std::move(spec), compute, device, mesh));
    by_name_[parameters_.back()->name()] = parameters_.back().get();
  }
  SW_CHECK(config.experts == 0 || config.d_model % mesh.shape().model == 0, usage,
           "mesh {}: d_model is {}, which model={} does not divide", mesh.shape().str(),
           config.d_model, mesh.shape().model);
  if (config.experts > 0) {
    RouterConfig router = router_config(config);
    router.bf16_gate = config.conventions.bf16_gate && compute == DType::bf16;
    router_ = make_router(router);
  }
  embedding_ = require("shared/embedding");
  head_ = config.tied_embeddings ? nullptr : require("lm_head");
  encoder_ = make_stack(false);
  decoder_ = make_stack(true);
}

Parameter* Model::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

Parameter* Model::require(const std::string& name) const {
  Parameter* parameter = find(name);
  SW_CHECK(parameter != nullptr, internal, "model: no parameter '{}'", name);
  return parameter;
}

void Model::initialize(uint64_t seed) {
  for (auto& parameter : parameters_) parameter->initialize(Stream{device_}, seed);
}

void Model::clear_gradients() {
  for (auto& parameter : parameters_) parameter->gradient().clear();
}

AttentionLayer Model::attention_layer(const std::string& prefix) {
  AttentionLayer layer;
  layer.ordinal = ordinals_++;
  layer.norm = require(prefix + "norm");
  layer.q = require(prefix + "q");
  layer.k = require(prefix + "k");
  layer.v = require(prefix + "v");
  layer.o = require(prefix + "o");
  return layer;
}

Model::Block Model::make_block(const std::string& prefix, bool decoder, bool sparse) {
  Block block;
  block.self = attention_layer(prefix + "attn/");
  if (decoder) block.cross = attention_layer(prefix + "cross/");
  block.is_sparse = sparse;
  const bool gated = is_gated(config_.activation);
  const std::string ffn = prefix + (sparse ? "moe/" : "mlp/");
  Parameter* norm = require(ffn + "norm");
  Parameter* wi = require(ffn + (gated ? "wi_0" : "wi"));
  Parameter* gate = gated ? require(ffn + "wi_1") : nullptr;
  Parameter* wo = require(ffn + "wo");
  const uint64_t ordinal = ordinals_++;
  if (sparse) {
    block.sparse = {ordinal,
                    prefix.substr(0, prefix.size() - 1),
                    router_.get(),
                    norm,
                    require(ffn + "router"),
                    wi,
                    gate,
                    wo,
                    find(ffn + "router_bias")};
  } else {
    block.dense = {ordinal, norm, wi, gate, wo};
  }
  for (auto& parameter : parameters_) {
    const std::string& name = parameter->name();
    if (name.starts_with(prefix) && !name.ends_with("/relative_bias")) {
      block.parameters.push_back(parameter.get());
    }
  }
  return block;
}

Model::Stack Model::make_stack(bool decoder) {
  Stack stack;
  stack.decoder = decoder;
  stack.name = decoder ? "decoder" : "encoder";
  stack.ordinal = ordinals_++;
  const int64_t layers = decoder ? config_.decoder_layers : config_.encoder_layers;
  for (int64_t i = 0; i < layers; ++i) {
    const bool sparse =
        decoder ? config_.decoder_layer_is_sparse(i) : config_.encoder_layer_is_sparse(i);
    stack.blocks.push_back(
        make_block(fmt::format("{}/block_{:03d}/", stack.name, i), decoder, sparse));
  }
  stack.relative_bias = require(stack.name + "/block_000/attn/relative_bias");
  stack.final_norm = require(stack.name + "/final_norm");
  return stack;
}

namespace {

// Runs `body` plainly or as a recomputed segment.
std::vector<Var> run_segment(Context& context, bool recompute, const Segment& body,
                             const std::vector<Var>& inputs) {
  return recompute ? checkpoint(context, body, inputs) : body(context, inputs);
}

}  // namespace

Model::StackOutput Model::run_stack(Context& context, const Stack& stack, const ModelInput& input,
                                    const Var& encoded, const ForwardOptions& options) const {
  const bool decoder = stack.decoder;
  const int64_t batch = input.rows;
  const int64_t length = decoder ? input.target_length : input.input_length;
  const Tensor& nonpadding = decoder ? input.target_nonpadding : input.input_nonpadding;
  const Tensor row_mask = config_.conventions.zero_padding_rows ? nonpadding : Tensor();
  const int64_t real_total = decoder ? input.real_targets_total : input.real_inputs_total;
  const Tensor& query_segments = decoder ? input.decoder_segments : input.encoder_query_segments;
  const Tensor& key_segments = decoder ? input.decoder_segments : input.encoder_key_segments;
  const double epsilon = config_.norm_epsilon;
  const int64_t mask_rows =
      config_.conventions.dropout_shared_over_length ? length : 1;  // per dropout mask
  const int64_t first_token = context.first_row * length;

  Var residual = ops::embedding(context, embedding_->var(),
                                decoder ? input.decoder_inputs : input.inputs);  // [N, D]
  residual = ops::dropout(context, residual, config_.dropout, site(stack.ordinal, Site::embedding),
                          first_token, mask_rows);
  const Tensor buckets = relative_buckets(length, length, !decoder, config_.relative_buckets,
                                          config_.relative_max_distance);
  const Var bias = ops::relative_bias(context, stack.relative_bias->var(), buckets);
  // One sum of the gradients of all layers that read it, over the ranks of the model axis.
  const Var keys = decoder ? ops::copy_to_model(context, encoded) : Var();

  StackOutput out;
  Var branch;  // what the last sublayer adds to the residual; undefined before the first
  const bool by_layer = options.recompute == Recompute::layer;
  const auto norm = [row_mask, epsilon](Context& c, const Var& res, const Var& br,
                                        const Parameter* scale) {
    return ops::residual_norm(c, res, br, scale->var(), row_mask, epsilon);
  };

  for (const Block& block : stack.blocks) {
    if (context.tape != nullptr && context.listener != nullptr) {
      // Runs when the backward pass has left the block.
      context.tape->record(
          [listener = context.listener, b = &block] { listener->complete(b->parameters); });
    }
    // Routings leave a segment by the side door; a recomputing pass finds them in its replay store.
    // Segments outlive this call, so they hold copies of all they read (tensors are handles).
    auto routings = std::make_shared<std::vector<std::shared_ptr<ops::Routing>>>();
    const auto run_block = [=, this, b = &block](Context& c, const Var& res, const Var& br) {
      ops::ResidualNorm normed = norm(c, res, br, b->self.norm);
      const Segment self = [=, this](Context& inner, const std::vector<Var>& in) {
        return std::vector<Var>{b->self.forward(inner, config_, in[0], Var(), in[1], query_segments,
                                                key_segments, batch, length, length, decoder)};
      };
      Var added = run_segment(c, by_layer, self, {normed.normed, bias})[0];
      if (decoder) {
        normed = norm(c, normed.residual, added, b->cross.norm);
        const Segment cross = [=, this](Context& inner, const std::vector<Var>& in) {
          return std::vector<Var>{
              b->cross.forward(inner, config_, in[0], in[1], Var(), input.cross_query_segments,
                               input.cross_key_segments, batch, length, input.input_length, false)};
        };
        added = run_segment(c, by_layer, cross, {normed.normed, keys})[0];
      }
      normed = norm(c, normed.residual, added, b->is_sparse ? b->sparse.norm : b->dense.norm);
      const Segment feed_forward = [=, this](Context& inner, const std::vector<Var>& in) {
        if (!b->is_sparse) {
          return std::vector<Var>{b->dense.forward(inner, config_, in[0], length)};
        }
        SwitchLayer::Output sparse =
            b->sparse.forward(inner, config_, in[0], input, nonpadding, real_total, length);
        if (!inner.replaying) routings->push_back(sparse.routing);
        return std::vector<Var>{sparse.branch};
      };
      added = run_segment(c, by_layer, feed_forward, {normed.normed})[0];
      return std::vector<Var>{normed.residual, added};
    };

    std::vector<Var> next;
    if (options.recompute == Recompute::full && branch.defined()) {
      next = checkpoint(context,
                        [run_block](Context& c, const std::vector<Var>& in) {
                          return run_block(c, in[0], in[1]);
                        },
                        {residual, branch});
    } else if (options.recompute == Recompute::full) {
      next = checkpoint(context,
                        [run_block](Context& c, const std::vector<Var>& in) {
                          return run_block(c, in[0], Var());
                        },
                        {residual});
    } else {
      next = run_block(context, residual, branch);
    }
    residual = next[0];
    branch = next[1];
    for (auto& routing : *routings) out.routings.push_back(std::move(routing));
  }

  const ops::ResidualNorm last = norm(context, residual, branch, stack.final_norm);
  out.hidden = ops::dropout(context, last.normed, config_.dropout, site(stack.ordinal, Site::final),
                            first_token, mask_rows);
  return out;
}

double Model::logit_scale() const {
  return head_ == nullptr ? 1.0 / std::sqrt(static_cast<double>(config_.d_model)) : 1.0;
}

Var Model::decode(Context& context, const ModelInput& input) const {
  context.compute = compute_;
  context.mesh = mesh_;
  context.first_row = input.first_row;
  const StackOutput encoder = run_stack(context, encoder_, input, Var(), {});
  return run_stack(context, decoder_, input, encoder.hidden, {}).hidden;
}

ForwardResult Model::forward(Context& context, const ModelInput& input,
                             const ForwardOptions& options) const {
  context.compute = compute_;
  context.mesh = mesh_;
  context.first_row = input.first_row;
  const StackOutput encoder = run_stack(context, encoder_, input, Var(), options);
  const StackOutput decoder = run_stack(context, decoder_, input, encoder.hidden, options);

  ForwardResult result;
  kernels::CrossEntropyParams params;
  params.logit_scale = logit_scale();
  params.weight = 1.0 / input.loss_denominator;
  params.z_loss = context.training ? config_.output_z_loss : 0.0;
  params.label_smoothing = context.training ? config_.label_smoothing : 0.0;
  if (options.want_logits) {
    result.logits = Tensor::empty({input.rows * input.target_length, config_.vocab_size},
                                  context.master(), context.device());
  }
  const Var table = output_table().var();
  result.sums = options.loss_head
                    ? options.loss_head(context, decoder.hidden, table, input.targets, params)
                    : ops::cross_entropy(context, decoder.hidden, table, input.targets, params,
                                         result.logits);
  result.cross_entropy = -result.sums.log_likelihood * params.weight;
  result.loss = result.sums.loss;
  add_router_losses(context, encoder, decoder, options.router_loss_scale, result);
  return result;
}

void Model::add_router_losses(Context& context, const StackOutput& encoder,
                              const StackOutput& decoder, double scale,
                              ForwardResult& result) const {
  RouterLossConfig loss;
  loss.rule = config_.conventions.router_losses;
  loss.aux_coefficient = scale * config_.aux_loss;
  const bool z = context.training || config_.conventions.router_z_loss_in_eval;
  loss.z_coefficient = z ? scale * config_.router_z_loss : 0.0;
  loss.layers = static_cast<int64_t>(encoder.routings.size() + decoder.routings.size());

  const auto add_stack = [&](const Stack& stack, const StackOutput& out, double& aux,
                             double& z_value) {
    if (out.routings.empty()) return;
    std::vector<RouterLossTerms> terms;
    for (const auto& routing : out.routings) terms.push_back(routing->loss_terms);
    const int64_t step = stack.decoder ? config_.decoder_sparse_step : config_.encoder_sparse_step;
    RouterLossConfig stack_loss = loss;
    if (step == 1 && !config_.conventions.all_sparse_stack_has_losses) {
      stack_loss.aux_coefficient = stack_loss.z_coefficient = 0;
    }
    RouterLosses losses = router_losses(terms, stack_loss);
    aux = losses.aux;
    z_value = losses.z;
    result.aux_loss += stack_loss.aux_coefficient * losses.aux;
    result.router_z_loss += stack_loss.z_coefficient * losses.z;
    result.loss += losses.total;
    size_t i = 0;
    for (const Block& block : stack.blocks) {
      if (!block.is_sparse) continue;
      out.routings[i]->loss_gradient = std::move(losses.gradients[i]);
      result.layers.push_back(
          {block.sparse.name, out.routings[i], losses.layer_aux[i], losses.layer_z[i]});
      ++i;
    }
  };
  add_stack(encoder_, encoder, result.encoder_aux, result.encoder_z);
  add_stack(decoder_, decoder, result.decoder_aux, result.decoder_z);
}

std::vector<RouterStatistics> layer_statistics(const Model& model, const ForwardResult& result) {
  std::vector<RouterStatistics> statistics;
  for (const ForwardResult::Layer& layer : result.layers) {
    statistics.push_back(router_statistics(layer.name, layer.routing->input, layer.routing->plan,
                                           model.config().conventions.padding));
    statistics.back().add_losses(layer.aux, layer.z,
                                 1.0 / static_cast<double>(layer.routing->input.shards));
  }
  return statistics;
}

}  // namespace sw
