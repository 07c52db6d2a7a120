#include <optional>
#include <vector>

#include "libswitch/base/error.h"
#include "tests/oracle/oracle.h"

namespace sw::oracle {
namespace {

template <class T>
T get(const Json& config, const char* key, T fallback) {
  const auto it = config.find(key);
  return it == config.end() || it->is_null() ? fallback : it->get<T>();
}

// Which layers are sparse: a saved step overrides the count (library's rule: i mod step == 1, or
// every layer for 1).
void set_sparsity(const Json& config, const char* step_key, const char* count_key, int64_t layers,
                  int64_t& step, int64_t& offset) {
  const int64_t count = get<int64_t>(config, count_key, 3);
  step = get<int64_t>(config, step_key, count > 0 ? layers / count : layers);
  offset = step == 1 ? 0 : 1;
  if (step < 0) step = 0;
  if (step == 0) offset = 0;
}

Activation activation_of(const Json& config, bool t5) {
  std::string name = get<std::string>(config, "feed_forward_proj", t5 ? "relu" : "");
  bool gated = get<bool>(config, "is_gated_act", false);
  if (name.rfind("gated-", 0) == 0) {
    gated = true;
    name = name == "gated-gelu" ? "gelu_new" : name.substr(6);
  }
  if (name.empty() || config.contains("dense_act_fn")) {
    name = get<std::string>(config, "dense_act_fn", name.empty() ? "relu" : name);
  }
  if (!gated && name == "relu") return Activation::relu;
  if (gated && name == "gelu_new") return Activation::geglu;
  fail(ErrorKind::usage,
       "config.json: activation {}'{}' is not one that the model has (relu, gated gelu_new)",
       gated ? "gated " : "", name);
}

ModelConfig read_config(const Json& json, bool t5) {
  ModelConfig config;
  config.conventions = conventions_preset("hf");
  config.vocab_size = get<int64_t>(json, "vocab_size", 32128);
  config.d_model = get<int64_t>(json, "d_model", t5 ? 512 : 768);
  config.d_kv = get<int64_t>(json, "d_kv", 64);
  config.d_ff = get<int64_t>(json, "d_ff", 2048);
  config.heads = get<int64_t>(json, "num_heads", t5 ? 8 : 12);
  config.encoder_layers = get<int64_t>(json, "num_layers", t5 ? 6 : 12);
  config.decoder_layers =
      get<int64_t>(json, "num_decoder_layers", t5 ? config.encoder_layers : int64_t{12});
  if (json.contains("num_decoder_layers") && json["num_decoder_layers"].is_null()) {
    config.decoder_layers = config.encoder_layers;
  }
  config.activation = activation_of(json, t5);
  config.tied_embeddings = get<bool>(json, "tie_word_embeddings", true);
  config.relative_buckets = get<int64_t>(json, "relative_attention_num_buckets", 32);
  config.relative_max_distance = get<int64_t>(json, "relative_attention_max_distance", 128);
  config.norm_epsilon = get<double>(json, "layer_norm_epsilon", 1e-6);
  config.output_z_loss = 0;
  config.jitter = 0;
  if (!t5) {
    config.router_bias = get<bool>(json, "router_bias", false);
    config.experts = get<int64_t>(json, "num_experts", 8);
    config.expert_capacity = get<int64_t>(json, "expert_capacity", 64);
    config.aux_loss = get<double>(json, "router_aux_loss_coef", 0.001);
    config.router_z_loss = get<double>(json, "router_z_loss_coef", 0.001);
    set_sparsity(json, "encoder_sparse_step", "num_sparse_encoder_layers", config.encoder_layers,
                 config.encoder_sparse_step, config.encoder_sparse_offset);
    set_sparsity(json, "decoder_sparse_step", "num_sparse_decoder_layers", config.decoder_layers,
                 config.decoder_sparse_step, config.decoder_sparse_offset);
  }
  return config;
}

template <class T>
std::vector<T> flatten(const Json& rows, const char* what, size_t length) {
  std::vector<T> out;
  for (const Json& row : rows) {
    SW_CHECK(row.size() == length, corrupt, "inputs.json: {} has rows of different lengths", what);
    for (const Json& value : row) out.push_back(value.get<T>());
  }
  return out;
}

Json routing_json(const ForwardResult& result, int64_t rows) {
  Json out = Json::object();
  for (const ForwardResult::Layer& layer : result.layers) {
    const RoutingPlan& plan = layer.routing->plan;
    const int32_t* expert = plan.expert.data<int32_t>();
    const int32_t* slot = plan.slot.data<int32_t>();
    const int64_t length = plan.tokens / rows;
    Json table = Json::array();
    for (int64_t row = 0; row < rows; ++row) {
      Json line = Json::array();
      for (int64_t i = row * length; i < (row + 1) * length; ++i) {
        line.push_back(slot[i] >= 0 ? expert[i] : -1 - expert[i]);
      }
      table.push_back(std::move(line));
    }
    const bool decoder = layer.name.rfind("decoder", 0) == 0;
    const int block = std::stoi(layer.name.substr(layer.name.size() - 3));
    out[fmt::format("{}.block.{}.layer.{}.mlp.router", decoder ? "decoder" : "encoder", block,
                    decoder ? 2 : 1)] = std::move(table);
  }
  return out;
}

}  // namespace

Json run_hugging_face_case(const std::filesystem::path& folder, const RunOptions& options) {
  const Json json = read_json(folder / "config.json");
  const Json inputs = read_json(folder / "inputs.json");
  const std::string type = get<std::string>(json, "model_type", "");
  SW_CHECK(type == "t5" || type == "switch_transformers", usage,
           "{}: model_type '{}', expected t5 or switch_transformers",
           (folder / "config.json").string(), type);
  const bool t5 = type == "t5";
  const HfFamily family = t5 ? HfFamily::t5 : HfFamily::switch_transformers;

  TokenRows rows;
  rows.rows = static_cast<int64_t>(inputs.at("input_ids").size());
  SW_CHECK(rows.rows > 0, corrupt, "inputs.json: no rows");
  const size_t s = inputs["input_ids"][0].size(), t = inputs.at("labels")[0].size();
  rows.input_length = static_cast<int64_t>(s), rows.target_length = static_cast<int64_t>(t);
  const auto ids = flatten<int32_t>(inputs["input_ids"], "input_ids", s);
  const auto labels = flatten<int32_t>(inputs["labels"], "labels", t);
  std::vector<uint8_t> mask(ids.size(), 1);
  if (inputs.contains("attention_mask")) {
    mask = flatten<uint8_t>(inputs["attention_mask"], "attention_mask", s);
  }
  rows.inputs = ids, rows.targets = labels, rows.input_mask = mask;
  rows.first_target_id = 0;  // -100 stands for no label

  Model model(read_config(json, t5), options.dtype);
  fill_weights(model, family, 1.0, "");
  Tape tape;
  Context context;
  context.tape = &tape;
  const ModelInput input = make_model_input(rows, model.config().conventions);
  const ForwardResult result =
      model.forward(context, input, {options.recompute, /*want_logits=*/true});
  tape.backward();

  Json out;
  out["loss"] = result.loss;
  out["cross_entropy"] = result.cross_entropy;
  const ModelConfig& config = model.config();
  const auto put_losses = [&](const char* stack, bool present, double z, double aux) {
    out[std::string(stack) + "_z_loss"] = present ? Json(z) : Json(nullptr);
    out[std::string(stack) + "_aux_loss"] = present ? Json(aux) : Json(nullptr);
  };
  if (!t5) {
    put_losses("encoder", config.experts > 0 && config.encoder_sparse_step > 1, result.encoder_z,
               result.encoder_aux);
    put_losses("decoder", config.experts > 0 && config.decoder_sparse_step > 1, result.decoder_z,
               result.decoder_aux);
  }
  const std::vector<double> logits = result.logits.to_vector();
  Json all = Json::array();
  size_t at = 0;
  for (int64_t b = 0; b < rows.rows; ++b) {
    Json row = Json::array();
    for (size_t i = 0; i < t; ++i, at += static_cast<size_t>(config.vocab_size)) {
      row.push_back(
          std::vector<double>(logits.begin() + static_cast<long>(at),
                              logits.begin() + static_cast<long>(at) + config.vocab_size));
    }
    all.push_back(std::move(row));
  }
  out["logits"] = std::move(all);
  out["routing"] = routing_json(result, rows.rows);
  out["gradients"] = describe_parameters(model, family, false);
  out["gradient_l2"] = gradient_norm(model);
  out["parameters"] = count_parameters(config).total;
  return out;
}

}  // namespace sw::oracle
