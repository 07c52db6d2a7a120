#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

void declare_backbone(OptionRegistry& r, ModelConfig& c) {
  r.add("vocab-size", &c.vocab_size)
      .range(0, ModelConfig::kMaxVocabulary)
      .advanced()
      .help("rows of the embedding table")
      .details("0 takes the data's vocabulary, rounded up to a multiple of 128.");
  r.add("d-model", &c.d_model)
      .range(1, ModelConfig::kMaxWidth)
      .advanced()
      .help("width of the residual stream");
  r.add("d-kv", &c.d_kv)
      .range(1, ModelConfig::kMaxWidth)
      .advanced()
      .help("width of one attention head");
  r.add("heads", &c.heads).range(1, ModelConfig::kMaxWidth).advanced().help("attention heads");
  r.add("d-ff", &c.d_ff)
      .range(1, ModelConfig::kMaxWidth)
      .advanced()
      .help("width of a feed-forward layer or expert");
  r.add("encoder-layers", &c.encoder_layers)
      .range(1, ModelConfig::kMaxLayers)
      .advanced()
      .help("encoder blocks");
  r.add("decoder-layers", &c.decoder_layers)
      .range(1, ModelConfig::kMaxLayers)
      .advanced()
      .help("decoder blocks");
  r.add_choice("activation", &c.activation,
               {{"relu", Activation::relu},
                {"gelu", Activation::gelu},
                {"gelu_new", Activation::gelu_new},
                {"silu", Activation::silu},
                {"reglu", Activation::reglu},
                {"geglu", Activation::geglu},
                {"swiglu", Activation::swiglu}})
      .advanced()
      .help("of the feed-forward layers");
  r.add("tied-embeddings", &c.tied_embeddings)
      .advanced()
      .help("output logits come from the embedding table");
  r.add("relative-buckets", &c.relative_buckets)
      .range(4, ModelConfig::kMaxWidth)
      .advanced()
      .help("buckets of the relative position bias");
  r.add("relative-max-distance", &c.relative_max_distance)
      .at_least(1)
      .advanced()
      .help("distance from which on all positions share a bucket");
  r.add("norm-epsilon", &c.norm_epsilon).above(0).advanced().help("added to the mean square");
}

void declare_sparsity(OptionRegistry& r, ModelOptions& o) {
  r.add("experts", &o.config.experts)
      .range(0, ModelConfig::kMaxExperts)
      .help("experts of a sparse layer; 0: the dense twin of equal FLOPs");
  r.add("expert-every", &o.expert_every)
      .at_least(0)
      .value_name("N")
      .help("the last of every N layers is sparse");
  const auto part = [&](const char* name, std::optional<int64_t>* field, const char* help) {
    r.add(name, field).at_least(0).advanced().help(help);
  };
  part("encoder-sparse-step", &o.encoder_sparse_step, "expert-every of the encoder alone");
  part("encoder-sparse-offset", &o.encoder_sparse_offset, "first sparse encoder layer, from 0");
  part("decoder-sparse-step", &o.decoder_sparse_step, "expert-every of the decoder alone");
  part("decoder-sparse-offset", &o.decoder_sparse_offset, "first sparse decoder layer, from 0");
}

void declare_router(OptionRegistry& r, ModelConfig& c) {
  r.add_choice("router", &c.router, {"switch", "top2", "ntlb"}).help("routing scheme");
  r.add("capacity-factor", &c.capacity_factor).above(0).help("expert capacity in training");
  r.add("eval-capacity-factor", &c.eval_capacity_factor)
      .above(0)
      .help("expert capacity in evaluation");
  r.add("min-capacity", &c.min_capacity)
      .at_least(0)
      .advanced()
      .help("least tokens an expert takes per group");
  r.add("expert-capacity", &c.expert_capacity)
      .at_least(0)
      .advanced()
      .help("tokens an expert takes per row under conventions hf");
  r.add("max-group-size", &c.max_group_size)
      .at_least(1)
      .advanced()
      .help("tokens of a routing group, at most");
  r.add("aux-loss", &c.aux_loss).at_least(0).help("weight of the load-balancing loss");
  r.add("z-loss", &c.router_z_loss).at_least(0).help("weight of the router's z-loss");
  r.add("jitter", &c.jitter).at_least(0).below(1).help("noise on the router's input in training");
  r.add_choice("selection", &c.selection, {"argmax", "sample"})
      .advanced()
      .help("how the switch router picks an expert");
  r.add_choice("second-policy", &c.second_policy, {"all", "none", "threshold", "random"})
      .advanced()
      .help("when top2 uses the second expert");
  r.add("second-threshold", &c.second_threshold)
      .above(0)
      .advanced()
      .help("gate of the second expert that counts as certain");
  r.add("router-bias", &c.router_bias).advanced().help("a bias on the router's logits");
  r.add("ntlb-k", &c.ntlb_k).at_least(1).advanced().help("rounds of no-token-left-behind");
}

void declare_regularisation(OptionRegistry& r, ModelOptions& o) {
  ModelConfig& c = o.config;
  r.add("dropout", &c.dropout).at_least(0).below(1).help("dropout rate");
  r.add("expert-dropout", &o.expert_dropout)
      .at_least(0)
      .below(1)
      .default_text("--dropout")
      .help("dropout rate inside experts");
  r.add("input-dropout", &c.input_dropout)
      .at_least(0)
      .below(1)
      .advanced()
      .help("dropout rate of the router's input");
  r.add("output-z-loss", &c.output_z_loss)
      .at_least(0)
      .advanced()
      .help("weight of the squared log-normaliser of the output softmax");
  r.add("label-smoothing", &c.label_smoothing)
      .at_least(0)
      .below(1)
      .advanced()
      .help("share of the uniform distribution in the targets");
  r.add("init-scale", &c.init_scale).above(0).help("variance scale of the initial weights");
}

// Single choices of the conventions, for those who mix them.
void declare_conventions(OptionRegistry& r, ModelOptions& o) {
  const auto choice = [&](const char* name, std::optional<std::string>* field,
                          std::vector<std::string> words, const char* help) {
    r.add(name, field)
        .choices(std::move(words))
        .advanced()
        .default_text("as --conventions")
        .help(help);
  };
  choice("capacity-rule", &o.capacity_rule,
         {"floor_bounded", "round_half_even", "constant", "unlimited"},
         "how capacity follows from its factor");
  choice("group-rule", &o.group_rule, {"batch", "row"}, "what a routing group is");
  choice("padding-rule", &o.padding_rule, {"counted_not_dispatched", "excluded", "routed"},
         "what the router does with padding");
  choice("adafactor-expert-rms", &o.adafactor_expert_rms, {"all", "each"},
         "over which experts Adafactor takes its means");
}

}  // namespace

ModelConfig ModelOptions::resolve() const {
  ModelConfig resolved = config;
  resolved.expert_dropout = expert_dropout.value_or(config.dropout);
  Conventions& c = resolved.conventions = conventions_preset(conventions);
  if (capacity_rule) c.capacity = capacity_rule_from(*capacity_rule);
  if (group_rule) c.groups = group_rule_from(*group_rule);
  if (padding_rule) c.padding = padding_rule_from(*padding_rule);
  if (adafactor_expert_rms) {
    c.adafactor_expert_rms =
        *adafactor_expert_rms == "all" ? Conventions::ExpertRms::all : Conventions::ExpertRms::each;
  }
  const auto sparsity = [&](const std::optional<int64_t>& step,
                            const std::optional<int64_t>& offset, int64_t& step_out,
                            int64_t& offset_out) {
    step_out = step.value_or(expert_every);
    offset_out = offset.value_or(step_out > 0 ? step_out - 1 : 0);
  };
  sparsity(encoder_sparse_step, encoder_sparse_offset, resolved.encoder_sparse_step,
           resolved.encoder_sparse_offset);
  sparsity(decoder_sparse_step, decoder_sparse_offset, resolved.decoder_sparse_step,
           resolved.decoder_sparse_offset);
  return resolved;
}

void declare_model_options(OptionRegistry& registry, ModelOptions& options) {
  registry.group("model", "Model");
  registry.add("preset", &options.preset)
      .value_name("NAME")
      .names_preset()
      .help("model by name, or a .toml file");
  registry.add_choice("conventions", &options.conventions, conventions_names())
      .help("whose code to follow where the public ones differ");
  declare_sparsity(registry, options);
  declare_router(registry, options.config);
  declare_regularisation(registry, options);
  declare_conventions(registry, options);
  declare_backbone(registry, options.config);
}

ModelConfig model_config_from_toml(std::string_view toml, const std::string& name) {
  ModelOptions options;
  OptionRegistry registry;
  declare_model_options(registry, options);
  registry.apply_toml(toml, name, Source::file, UnknownKeys::ignore);
  return options.resolve();
}

std::string model_config_to_toml(const ModelConfig& config) {
  ModelOptions options;
  OptionRegistry registry;
  declare_model_options(registry, options);
  options.config = config;
  options.conventions = config.conventions.name;
  options.encoder_sparse_step = config.encoder_sparse_step;
  options.encoder_sparse_offset = config.encoder_sparse_offset;
  options.decoder_sparse_step = config.decoder_sparse_step;
  options.decoder_sparse_offset = config.decoder_sparse_offset;
  options.expert_dropout = config.expert_dropout;
  return registry.to_toml();
}

ModelConfig model_config_of_preset(const std::string& preset) {
  ModelOptions options;
  OptionRegistry registry;
  declare_model_options(registry, options);
  registry.apply_preset(preset, "preset");
  return options.resolve();
}

}  // namespace sw
