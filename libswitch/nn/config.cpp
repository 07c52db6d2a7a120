#include "libswitch/nn/config.h"

#include <cmath>

#include "libswitch/base/error.h"

namespace sw {
namespace {

using Kind = Initializer::Kind;
using InitRule = Conventions::InitRule;

constexpr double kTruncatedDeviation = 0.87962566103423978;  // of a unit normal cut at two sigma

// Initialisers by rule (paper.md's section on initialisation: Mesh TensorFlow, T5X and Hugging Face
// differ).
struct Initializers {
  const ModelConfig& config;
  double d() const { return static_cast<double>(config.d_model); }
  double s() const { return config.init_scale; }

  Initializer embedding() const {
    return {Kind::normal, config.conventions.init == InitRule::hf ? s() : 1.0};
  }
  Initializer head() const {
    if (config.conventions.init == InitRule::hf) return {Kind::normal, s()};
    return dense(config.d_model);
  }
  Initializer norm() const {
    return {Kind::constant, config.conventions.init == InitRule::hf ? s() : 1.0};
  }
  /// `fan` is the input width; `query` divides by sqrt(d_kv) once more.
  Initializer attention(int64_t fan, bool query) const {
    double deviation = 1.0 / std::sqrt(static_cast<double>(fan));
    if (query) deviation /= std::sqrt(static_cast<double>(config.d_kv));
    if (config.conventions.init == InitRule::t5x) deviation *= std::sqrt(s());
    if (config.conventions.init == InitRule::hf) deviation *= s();
    return {Kind::normal, deviation};
  }
  Initializer dense(int64_t fan_in) const {
    const double fan = static_cast<double>(fan_in);
    switch (config.conventions.init) {
      case InitRule::mesh: return {Kind::truncated_normal, std::sqrt(s() / fan)};
      case InitRule::t5x:
        return {Kind::truncated_normal, std::sqrt(s() / fan) / kTruncatedDeviation};
      case InitRule::hf: return {Kind::normal, s() / std::sqrt(fan)};
    }
    return {};
  }
  Initializer expert(int64_t fan_in) const {
    const double fan = static_cast<double>(fan_in);
    switch (config.conventions.init) {
      case InitRule::mesh: return {Kind::truncated_normal, std::sqrt(s() / fan)};
      case InitRule::t5x: return {Kind::normal, std::sqrt(s() / fan)};
      case InitRule::hf: return {Kind::normal, s() / std::sqrt(d())};
    }
    return {};
  }
  Initializer router() const {
    switch (config.conventions.init) {
      case InitRule::mesh: return dense(config.d_model);
      case InitRule::t5x: return {Kind::normal, 0.02};
      case InitRule::hf: return {Kind::normal, s()};
    }
    return {};
  }
  Initializer relative_bias() const {
    const double fans = static_cast<double>(config.heads + config.relative_buckets);
    switch (config.conventions.init) {
      case InitRule::mesh: return {Kind::uniform, std::sqrt(6.0 / fans)};  // Glorot
      case InitRule::t5x: return {Kind::uniform, std::sqrt(3.0 * s() / (fans / 2.0))};
      case InitRule::hf: return {Kind::normal, s() / std::sqrt(d())};
    }
    return {};
  }
};

class SpecBuilder {
 public:
  explicit SpecBuilder(const ModelConfig& config) : config_(config), init_{config} {}

  std::vector<ParameterSpec> build() {
    const int64_t vocab = config_.vocab_size, width = config_.d_model;
    add("shared/embedding", {vocab, width}, {"vocab", "d_model"}, init_.embedding());
    stack("encoder", config_.encoder_layers, false);
    stack("decoder", config_.decoder_layers, true);
    if (!config_.tied_embeddings) {
      add("lm_head", {vocab, width}, {"vocab", "d_model"}, init_.head());
    }
    return std::move(specs_);
  }

 private:
  void add(std::string name, Shape shape, std::vector<std::string> axes, Initializer initializer,
           bool master_only = false) {
    specs_.push_back({std::move(name), shape, std::move(axes), initializer, master_only});
  }
  void norm(const std::string& name) {
    add(name, {config_.d_model}, {"d_model"}, init_.norm(), true);
  }
  void attention(const std::string& prefix) {
    const int64_t width = config_.d_model, inner = config_.inner();
    norm(prefix + "norm");
    add(prefix + "q", {width, inner}, {"d_model", "heads_kv"}, init_.attention(width, true));
    add(prefix + "k", {width, inner}, {"d_model", "heads_kv"}, init_.attention(width, false));
    add(prefix + "v", {width, inner}, {"d_model", "heads_kv"}, init_.attention(width, false));
    add(prefix + "o", {inner, width}, {"heads_kv", "d_model"}, init_.attention(inner, false));
  }
  void feed_forward(const std::string& prefix) {
    const int64_t width = config_.d_model, hidden = config_.d_ff;
    norm(prefix + "norm");
    for (const char* name : input_names()) {
      add(prefix + name, {width, hidden}, {"d_model", "d_ff"}, init_.dense(width));
    }
    add(prefix + "wo", {hidden, width}, {"d_ff", "d_model"}, init_.dense(hidden));
  }
  void switch_layer(const std::string& prefix) {
    const int64_t width = config_.d_model, hidden = config_.d_ff, experts = config_.experts;
    norm(prefix + "norm");
    add(prefix + "router", {width, experts}, {"d_model", "experts"}, init_.router(), true);
    if (config_.router_bias) add(prefix + "router_bias", {experts}, {"experts"}, {}, true);
    for (const char* name : input_names()) {
      add(prefix + name, {experts, width, hidden}, {"expert", "d_model", "d_ff"},
          init_.expert(width));
    }
    add(prefix + "wo", {experts, hidden, width}, {"expert", "d_ff", "d_model"},
        init_.expert(hidden));
  }
  std::vector<const char*> input_names() const {
    if (is_gated(config_.activation)) return {"wi_0", "wi_1"};
    return {"wi"};
  }
  void stack(const std::string& name, int64_t layers, bool decoder) {
    for (int64_t i = 0; i < layers; ++i) {
      const std::string block = fmt::format("{}/block_{:03d}/", name, i);
      attention(block + "attn/");
      if (i == 0) {
        add(block + "attn/relative_bias", {config_.heads, config_.relative_buckets},
            {"heads", "buckets"}, init_.relative_bias(), true);
      }
      if (decoder) attention(block + "cross/");
      const bool sparse =
          decoder ? config_.decoder_layer_is_sparse(i) : config_.encoder_layer_is_sparse(i);
      if (sparse) {
        switch_layer(block + "moe/");
      } else {
        feed_forward(block + "mlp/");
      }
    }
    norm(name + "/final_norm");
  }

  const ModelConfig& config_;
  Initializers init_;
  std::vector<ParameterSpec> specs_;
};

void require_positive(const char* field, int64_t value) {
  SW_CHECK(value >= 1, usage, "model: {} is {}, expected at least 1", field, value);
}
void require_size(const char* field, int64_t value, int64_t most) {
  SW_CHECK(value >= 1 && value <= most, usage, "model: {} is {}, expected 1 to {}", field, value,
           most);
}
void require_rate(const char* field, double value) {
  SW_CHECK(value >= 0 && value < 1, usage, "model: {} is {}, expected a rate in [0, 1)", field,
           value);
}
void require_nonnegative(const char* field, double value) {
  SW_CHECK(std::isfinite(value) && value >= 0, usage,
           "model: {} is {}, expected a finite number of at least 0", field, value);
}

// Of the matrices; at least half of all.
double approximate_parameters(const ModelConfig& config) {
  const auto width = static_cast<double>(config.d_model);
  const auto layers = static_cast<double>(config.encoder_layers + config.decoder_layers);
  const double attention = 4 * static_cast<double>(config.heads) * static_cast<double>(config.d_kv);
  const double hidden =
      static_cast<double>(std::max<int64_t>(1, config.experts)) * static_cast<double>(config.d_ff);
  return width * (static_cast<double>(config.vocab_size) + layers * (attention + 2 * hidden));
}

}  // namespace

void ModelConfig::validate() const {
  require_size("vocab_size", vocab_size, kMaxVocabulary);
  require_size("d_model", d_model, kMaxWidth);
  require_size("d_kv", d_kv, kMaxWidth);
  require_size("heads", heads, kMaxWidth);
  require_size("d_ff", d_ff, kMaxWidth);
  require_size("encoder_layers", encoder_layers, kMaxLayers);
  require_size("decoder_layers", decoder_layers, kMaxLayers);
  SW_CHECK(relative_buckets >= 4 && relative_buckets <= kMaxWidth && relative_buckets % 2 == 0,
           usage,
           "model: relative_buckets is {}, expected an even number of at least 4, at most {}",
           relative_buckets, kMaxWidth);
  SW_CHECK(relative_max_distance > relative_buckets / 2, usage,
           "model: relative_max_distance is {}, expected more than half of relative_buckets ({})",
           relative_max_distance, relative_buckets);
  SW_CHECK(experts >= 0 && experts <= kMaxExperts, usage,
           "model: experts is {}, expected 0 (dense) to {}", experts, kMaxExperts);
  const double parameters = approximate_parameters(*this);
  SW_CHECK(parameters <= 1e16, usage,
           "model: about {:.0e} parameters, expected at most 1e16; lower experts, layers or widths",
           parameters);
  for (const auto& [field, step, offset] :
       {std::tuple{"encoder_sparse", encoder_sparse_step, encoder_sparse_offset},
        std::tuple{"decoder_sparse", decoder_sparse_step, decoder_sparse_offset}}) {
    SW_CHECK(
        step >= 0 && offset >= 0 && (step == 0 || offset < step), usage,
        "model: {}_step {} and {}_offset {} do not fit: expected 0 <= offset < step, or step 0 "
        "for no sparse layer",
        field, step, field, offset);
  }
  SW_CHECK(capacity_factor > 0 && eval_capacity_factor > 0 && std::isfinite(capacity_factor) &&
               std::isfinite(eval_capacity_factor),
           usage, "model: capacity factors are {} (training) and {} (evaluation), expected > 0",
           capacity_factor, eval_capacity_factor);
  SW_CHECK(min_capacity >= 0 && expert_capacity >= 0, usage,
           "model: min_capacity is {} and expert_capacity {}, expected at least 0", min_capacity,
           expert_capacity);
  require_positive("max_group_size", max_group_size);
  require_nonnegative("aux_loss", aux_loss);
  require_nonnegative("router_z_loss", router_z_loss);
  require_nonnegative("output_z_loss", output_z_loss);
  require_rate("jitter", jitter);
  require_rate("dropout", dropout);
  require_rate("expert_dropout", expert_dropout);
  require_rate("input_dropout", input_dropout);
  require_rate("label_smoothing", label_smoothing);
  SW_CHECK(norm_epsilon > 0 && std::isfinite(norm_epsilon), usage,
           "model: norm_epsilon is {}, expected > 0", norm_epsilon);
  SW_CHECK(init_scale > 0 && std::isfinite(init_scale), usage,
           "model: init_scale is {}, expected > 0", init_scale);
}

bool is_gated(Activation activation) {
  return activation == Activation::reglu || activation == Activation::geglu ||
         activation == Activation::swiglu;
}

kernels::Curve curve_of(Activation activation) {
  switch (activation) {
    case Activation::relu:
    case Activation::reglu: return kernels::Curve::relu;
    case Activation::gelu: return kernels::Curve::gelu;
    case Activation::gelu_new:
    case Activation::geglu: return kernels::Curve::gelu_tanh;
    case Activation::silu:
    case Activation::swiglu: return kernels::Curve::silu;
  }
  return kernels::Curve::relu;
}

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config) {
  config.validate();
  return SpecBuilder(config).build();
}

ParameterCount count_parameters(const ModelConfig& config) {
  const int64_t choices = config.router == "top2" ? std::min<int64_t>(2, config.experts) : 1;
  ParameterCount count;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    count.total += spec.elements();
    count.active += spec.expert() ? spec.elements() / config.experts * choices : spec.elements();
  }
  return count;
}

namespace {

double feed_forward_weights(const ModelConfig& config) {
  const double matrices = is_gated(config.activation) ? 3 : 2;
  return matrices * static_cast<double>(config.d_model) * static_cast<double>(config.d_ff);
}

}  // namespace

double forward_flops(const ModelConfig& config, int64_t input_length, int64_t target_length) {
  const auto s = static_cast<double>(input_length), t = static_cast<double>(target_length);
  const auto d = static_cast<double>(config.d_model), inner = static_cast<double>(config.inner());
  const auto choices = config.router == "top2" ? 2.0 : 1.0;
  const double ffn = feed_forward_weights(config);
  double flops = 0;
  for (int64_t i = 0; i < config.encoder_layers; ++i) {
    const bool sparse = config.encoder_layer_is_sparse(i);
    flops += 2 * s * (4 * d * inner + ffn * (sparse ? choices : 1)) + 4 * s * s * inner;
    if (sparse) flops += 2 * s * d * static_cast<double>(config.experts);
  }
  for (int64_t i = 0; i < config.decoder_layers; ++i) {
    const bool sparse = config.decoder_layer_is_sparse(i);
    flops += 2 * t * (6 * d * inner + ffn * (sparse ? choices : 1)) + 2 * s * 2 * d * inner +
             4 * t * t * inner + 4 * t * s * inner;
    if (sparse) flops += 2 * t * d * static_cast<double>(config.experts);
  }
  return flops + 2 * t * d * static_cast<double>(config.vocab_size);
}

double paper_flops(const ModelConfig& config, int64_t input_length, int64_t target_length) {
  const auto s = static_cast<double>(input_length), t = static_cast<double>(target_length);
  const auto d = static_cast<double>(config.d_model), inner = static_cast<double>(config.inner());
  const double ffn = feed_forward_weights(config);
  const auto encoder = static_cast<double>(config.encoder_layers);
  const auto decoder = static_cast<double>(config.decoder_layers);
  return 2 * s * encoder * (4 * d * inner + ffn) + 2 * t * decoder * (8 * d * inner + ffn) +
         2 * t * d * static_cast<double>(config.vocab_size) +
         2 * inner * (encoder * s * s + decoder * (t * t + s * t));
}

}  // namespace sw
