#include "libswitch/convert/hugging_face_config.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "libswitch/base/error.h"
#include "libswitch/io/json_text.h"

namespace sw {
namespace {

using nlohmann::json;

// Typed access: absent and null mean the library's default.
class Keys {
 public:
  Keys(const json& object, const std::string& name) : object_(object), name_(name) {}

  bool has(const char* key) const {
    const auto at = object_.find(key);
    return at != object_.end() && !at->is_null();
  }
  int64_t integer(const char* key, int64_t fallback) const {
    if (!has(key)) return fallback;
    const json& value = object_[key];
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() || value.get<uint64_t>() <= kLargest) &&
                      value.get<int64_t>() >= 0 && value.get<int64_t>() <= kLargest;
    if (!fits) wrong(key, "an integer from 0 to 2147483647");
    return value.get<int64_t>();
  }
  double number(const char* key, double fallback) const {
    if (!has(key)) return fallback;
    if (!object_[key].is_number()) wrong(key, "a number");
    return object_[key].get<double>();
  }
  bool flag(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!object_[key].is_boolean()) wrong(key, "true or false");
    return object_[key].get<bool>();
  }
  std::string text(const char* key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    if (!object_[key].is_string()) wrong(key, "a text");
    return object_[key].get<std::string>();
  }
  const std::string& name() const { return name_; }

 private:
  static constexpr int64_t kLargest = 2147483647;

  [[noreturn]] void wrong(const char* key, const char* expected) const {
    fail(ErrorKind::corrupt, "{}: {}: expected {}, got {}", name_, key, expected,
         shown(object_[key].dump(-1, ' ', true, json::error_handler_t::replace)));
  }

  const json& object_;
  const std::string& name_;
};

// Which layers are sparse: a saved step overrides the count. Layer i is sparse iff step > 0 and
// (step == 1 or i mod step == 1).
void read_sparsity(const Keys& keys, const char* step_key, const char* count_key, int64_t layers,
                   int64_t& step, int64_t& offset) {
  const int64_t count = keys.integer(count_key, 3);
  step = keys.integer(step_key, count > 0 ? layers / count : layers);
  offset = step > 1 ? 1 : 0;
}

// Names of activations in both keys; the first of an activation is the one that is written. T5's
// "gated-gelu" is the tanh approximation.
struct ActivationName {
  Activation activation;
  const char* dense_act_fn;
  const char* feed_forward_proj;
};
constexpr ActivationName kActivations[] = {
    {Activation::relu, "relu", "relu"},
    {Activation::gelu, "gelu", "gelu"},
    {Activation::gelu_new, "gelu_new", "gelu_new"},
    {Activation::silu, "silu", "silu"},
    {Activation::reglu, "relu", "gated-relu"},
    {Activation::geglu, "gelu_new", "gated-gelu"},
    {Activation::swiglu, "silu", "gated-silu"},
    {Activation::gelu_new, "gelu_pytorch_tanh", "gelu_pytorch_tanh"},
    {Activation::silu, "swish", "swish"},
    {Activation::geglu, "gelu_pytorch_tanh", "gated-gelu_pytorch_tanh"},
    {Activation::swiglu, "swish", "gated-swish"},
};

const ActivationName& name_of(Activation activation) {
  return *std::find_if(std::begin(kActivations), std::end(kActivations),
                       [&](const ActivationName& n) { return n.activation == activation; });
}

Activation read_activation(const Keys& keys, bool t5) {
  std::string name = keys.text("feed_forward_proj", t5 ? "relu" : "");
  const bool named = keys.has("dense_act_fn");
  // transformers' Switch has dense_act_fn alone, and no gate.
  bool gated = keys.flag("is_gated_act", false);
  if (name.starts_with("gated-")) {
    gated = gated || t5 || !named;
    name = name == "gated-gelu" ? "gelu_new" : name.substr(6);
  }
  if (name.empty() || named) name = keys.text("dense_act_fn", name.empty() ? "relu" : name);
  for (const ActivationName& known : kActivations) {
    if (is_gated(known.activation) == gated && name == known.dense_act_fn) return known.activation;
  }
  std::string all;
  for (const ActivationName& known : kActivations) {
    all += fmt::format("{}{}{}", all.empty() ? "" : ", ",
                       is_gated(known.activation) ? "gated " : "", known.dense_act_fn);
  }
  fail(ErrorKind::corrupt, "{}: the activation {}{} is none that the model has ({})", keys.name(),
       gated ? "gated " : "", shown(name), all);
}

bool is_t5(const Keys& keys) {
  const std::string type = keys.text("model_type", "");
  SW_CHECK(type == "t5" || type == "switch_transformers", corrupt,
           "{}: model_type \"{}\", expected \"t5\" or \"switch_transformers\"", keys.name(),
           shown(type));
  return type == "t5";
}

// Writes a key unless what is there, or the library's default where nothing is, says the same.
class Writer {
 public:
  explicit Writer(const json& original)
      : out_(original.is_object() ? original : json::object()), fresh_(!original.is_object()) {}

  void set(const char* key, json value, const json& fallback) {
    const auto at = out_.find(key);
    if (at != out_.end() ? *at == value : !fresh_ && fallback == value) return;
    out_[key] = std::move(value);
  }
  void set(const char* key, json value) { set(key, std::move(value), json()); }
  void fill(const char* key, json value) {
    if (!out_.contains(key)) out_[key] = std::move(value);
  }
  json take() { return std::move(out_); }

 private:
  json out_;
  bool fresh_;
};

void write_sparsity(Writer& writer, const char* stack, const ModelConfig& model, bool decoder) {
  const int64_t layers = decoder ? model.decoder_layers : model.encoder_layers;
  int64_t count = 0;
  for (int64_t i = 0; i < layers; ++i) {
    count += decoder ? model.decoder_layer_is_sparse(i) : model.encoder_layer_is_sparse(i);
  }
  int64_t step = decoder ? model.decoder_sparse_step : model.encoder_sparse_step;
  const int64_t offset = decoder ? model.decoder_sparse_offset : model.encoder_sparse_offset;
  if (count == 0) step = 0;
  SW_CHECK(step <= 1 || offset == 1, usage,
           "the {}'s sparse layers are those with i mod {} == {}; transformers knows only i mod "
           "step == 1, and would load another model",
           stack, step, offset);
  writer.fill(fmt::format("num_sparse_{}_layers", stack).c_str(), count);
  // Written always: without it the library would derive another step from the count.
  writer.set(fmt::format("{}_sparse_step", stack).c_str(), step);
}

}  // namespace

HuggingFaceConfig read_hugging_face_config(const json& object, const std::string& name) {
  SW_CHECK(object.is_object(), corrupt, "{}: not an object of keys", name);
  const Keys keys(object, name);
  const bool t5 = is_t5(keys);
  HuggingFaceConfig out;
  out.family = t5 ? HfFamily::t5 : HfFamily::switch_transformers;
  ModelConfig& config = out.model;
  config.conventions = conventions_preset("hf");
  config.vocab_size = keys.integer("vocab_size", 32128);
  config.d_model = keys.integer("d_model", t5 ? 512 : 768);
  config.d_kv = keys.integer("d_kv", 64);
  config.d_ff = keys.integer("d_ff", 2048);
  config.heads = keys.integer("num_heads", t5 ? 8 : 12);
  config.encoder_layers = keys.integer("num_layers", t5 ? 6 : 12);
  // Absent, Switch has 12 and T5 as many as the encoder; null is as many in both.
  const bool given = object.contains("num_decoder_layers");
  config.decoder_layers =
      keys.integer("num_decoder_layers", t5 || given ? config.encoder_layers : int64_t{12});
  config.activation = read_activation(keys, t5);
  config.tied_embeddings = keys.flag("tie_word_embeddings", true);
  config.relative_buckets = keys.integer("relative_attention_num_buckets", 32);
  config.relative_max_distance = keys.integer("relative_attention_max_distance", 128);
  config.norm_epsilon = keys.number("layer_norm_epsilon", 1e-6);
  config.dropout = config.expert_dropout = keys.number("dropout_rate", 0.1);
  config.init_scale = keys.number("initializer_factor", 1.0);
  config.output_z_loss = 0;
  config.jitter = 0;
  out.scaled_logits = config.tied_embeddings;
  if (t5) {
    out.scaled_logits = keys.flag("scale_decoder_outputs", config.tied_embeddings);
    out.scaling_is_named = keys.has("scale_decoder_outputs");
    return out;
  }
  config.router_bias = keys.flag("router_bias", false);
  out.router_dtype = keys.text("router_dtype", "float32");
  config.experts = keys.integer("num_experts", 8);
  config.expert_capacity = keys.integer("expert_capacity", 64);
  config.aux_loss = keys.number("router_aux_loss_coef", 0.001);
  config.router_z_loss = keys.number("router_z_loss_coef", 0.001);
  config.jitter = keys.number("router_jitter_noise", 0.01);
  read_sparsity(keys, "encoder_sparse_step", "num_sparse_encoder_layers", config.encoder_layers,
                config.encoder_sparse_step, config.encoder_sparse_offset);
  read_sparsity(keys, "decoder_sparse_step", "num_sparse_decoder_layers", config.decoder_layers,
                config.decoder_sparse_step, config.decoder_sparse_offset);
  return out;
}

json write_hugging_face_config(const ModelConfig& model, HfFamily family, const json& original,
                               const std::string& dtype) {
  const bool t5 = family == HfFamily::t5;
  Writer writer(original);
  writer.set("model_type", t5 ? "t5" : "switch_transformers");
  writer.fill("architectures", json::array({t5 ? "T5ForConditionalGeneration"
                                               : "SwitchTransformersForConditionalGeneration"}));
  writer.set("vocab_size", model.vocab_size, 32128);
  writer.set("d_model", model.d_model, t5 ? 512 : 768);
  writer.set("d_kv", model.d_kv, 64);
  writer.set("d_ff", model.d_ff, 2048);
  writer.set("num_heads", model.heads, t5 ? 8 : 12);
  writer.set("num_layers", model.encoder_layers, t5 ? 6 : 12);
  writer.set("num_decoder_layers", model.decoder_layers);
  writer.set("relative_attention_num_buckets", model.relative_buckets, 32);
  writer.set("relative_attention_max_distance", model.relative_max_distance, 128);
  writer.set("layer_norm_epsilon", model.norm_epsilon, 1e-6);
  writer.set("dropout_rate", model.dropout, 0.1);
  // Ours scales variances in two of three conventions: a factor of theirs only under `hf`.
  if (model.conventions.name == "hf") writer.set("initializer_factor", model.init_scale, 1.0);
  writer.fill("initializer_factor", 1.0);
  writer.set("tie_word_embeddings", model.tied_embeddings, true);
  writer.set("feed_forward_proj", name_of(model.activation).feed_forward_proj, "relu");
  writer.set("dense_act_fn", name_of(model.activation).dense_act_fn, "relu");
  writer.set("is_gated_act", is_gated(model.activation), false);
  writer.set("is_encoder_decoder", true, true);
  writer.fill("use_cache", true);
  writer.fill("pad_token_id", 0);
  writer.fill("eos_token_id", 1);
  writer.fill("decoder_start_token_id", 0);
  const bool renamed = original.is_object() && original.contains("dtype");  // by transformers 4.56
  writer.set(renamed ? "dtype" : "torch_dtype", dtype);
  // transformers 5 forces T5's tie_word_embeddings to true and keeps its meaning here.
  if (t5) writer.set("scale_decoder_outputs", model.tied_embeddings, true);
  if (t5) return writer.take();
  writer.set("num_experts", model.experts, 8);
  const bool constant = model.conventions.capacity == CapacityRule::constant;
  constexpr int64_t kUnbounded = 1 << 20;  // no other rule can be said: never drop
  writer.set("expert_capacity", constant ? model.expert_capacity : kUnbounded, 64);
  writer.set("router_bias", model.router_bias, false);
  writer.set("router_aux_loss_coef", model.aux_loss, 0.001);
  writer.set("router_z_loss_coef", model.router_z_loss, 0.001);
  writer.set("router_jitter_noise", model.jitter, 0.01);
  writer.fill("router_dtype", "float32");
  write_sparsity(writer, "encoder", model, false);
  write_sparsity(writer, "decoder", model, true);
  return writer.take();
}

}  // namespace sw
