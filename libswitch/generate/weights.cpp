#include "libswitch/generate/weights.h"

#include <cstring>
#include <map>

#include "libswitch/base/error.h"
#include "libswitch/kernels/few_rows.h"

namespace sw {

std::vector<std::string> sparse_layer_prefixes(const ModelConfig& config) {
  std::vector<std::string> prefixes;
  const auto add = [&](const char* stack, int64_t block) {
    prefixes.push_back(fmt::format("{}/block_{:03d}/moe/", stack, block));
  };
  for (int64_t i = 0; i < config.encoder_layers; ++i) {
    if (config.encoder_layer_is_sparse(i)) add("encoder", i);
  }
  for (int64_t i = 0; i < config.decoder_layers; ++i) {
    if (config.decoder_layer_is_sparse(i)) add("decoder", i);
  }
  return prefixes;
}

int64_t sparse_encoder_layers(const ModelConfig& config) {
  int64_t count = 0;
  for (int64_t i = 0; i < config.encoder_layers; ++i) count += config.encoder_layer_is_sparse(i);
  return count;
}

Tensor packed(const Tensor& matrix, kernels::Transpose transpose) {
  const bool transposed = transpose == kernels::Transpose::yes;
  const int64_t n = matrix.size(transposed ? 0 : 1), k = matrix.size(transposed ? 1 : 0);
  Tensor panels = Tensor::empty(kernels::panels_shape(n, k, matrix.dtype()), matrix.dtype());
  kernels::pack_columns(Stream{}, panels, matrix, transpose);
  return panels;
}

ExpertWeights packed_expert(const ExpertWeights& expert) {
  return {packed(expert.wi), expert.gate ? packed(expert.gate) : Tensor(), packed(expert.wo)};
}

DecodingWeights packed_for_steps(DecodingWeights weights) {
  const auto pack = [](Tensor& matrix) {
    if (matrix) matrix = packed(matrix);
  };
  for (DecodingWeights::Block& block : weights.encoder.blocks) pack(block.router);
  for (DecodingWeights::Block& block : weights.decoder.blocks) {
    DecodingWeights::Attention &self = block.self, &cross = block.cross;
    for (Tensor* matrix : {&self.q, &self.k, &self.v, &self.o, &cross.q, &cross.o, &block.wi,
                           &block.gate, &block.wo, &block.router}) {
      pack(*matrix);
    }
  }
  weights.head = packed(weights.head, kernels::Transpose::yes);
  return weights;
}

DecodingWeights collect_weights(const ModelConfig& config,
                                const std::function<Tensor(const std::string& name)>& read) {
  DecodingWeights out;
  int64_t sparse_layers = 0;
  const bool gated = is_gated(config.activation);
  const auto attention = [&](const std::string& prefix) {
    return DecodingWeights::Attention{read(prefix + "norm"), read(prefix + "q"), read(prefix + "k"),
                                      read(prefix + "v"), read(prefix + "o")};
  };
  const auto stack = [&](bool decoder) {
    DecodingWeights::Stack stack;
    const std::string name = decoder ? "decoder" : "encoder";
    const int64_t layers = decoder ? config.decoder_layers : config.encoder_layers;
    for (int64_t i = 0; i < layers; ++i) {
      const std::string prefix = fmt::format("{}/block_{:03d}/", name, i);
      DecodingWeights::Block block;
      block.self = attention(prefix + "attn/");
      if (decoder) block.cross = attention(prefix + "cross/");
      block.sparse =
          decoder ? config.decoder_layer_is_sparse(i) : config.encoder_layer_is_sparse(i);
      const std::string ffn = prefix + (block.sparse ? "moe/" : "mlp/");
      block.norm = read(ffn + "norm");
      if (block.sparse) {
        block.layer = sparse_layers++;
        block.router = read(ffn + "router");
        if (config.router_bias) block.router_bias = read(ffn + "router_bias");
      } else {
        block.wi = read(ffn + (gated ? "wi_0" : "wi"));
        if (gated) block.gate = read(ffn + "wi_1");
        block.wo = read(ffn + "wo");
      }
      stack.blocks.push_back(std::move(block));
    }
    stack.relative_bias = read(name + "/block_000/attn/relative_bias");
    stack.final_norm = read(name + "/final_norm");
    return stack;
  };
  out.embedding = read("shared/embedding");
  out.encoder = stack(false);
  out.decoder = stack(true);
  out.head = config.tied_embeddings ? out.embedding : read("lm_head");
  return out;
}

namespace {

// This rank's part of a parameter, or, where the model axis cuts it, the whole.
Tensor whole_over_model(const Parameter& parameter, Group& model) {
  const Tensor part = parameter.constant().value();
  const int cut = parameter.placement().model_dimension;
  if (model.size() == 1 || cut < 0) return part;
  Tensor parts = Tensor::empty({model.size() * part.elements()}, part.dtype());
  model.all_gather(parts, part.view({part.elements()}));
  Shape shape;
  for (int d = 0; d < part.rank(); ++d)
    shape.push_back(part.size(d) * (d == cut ? model.size() : 1));
  Tensor whole = Tensor::empty(shape, part.dtype());
  int64_t outer = 1, inner = element_bytes(part.dtype());
  for (int d = 0; d < cut; ++d) outer *= part.size(d);
  for (int d = cut; d < part.rank(); ++d) inner *= part.size(d);
  const auto* from = static_cast<const char*>(parts.raw());
  auto* to = static_cast<char*>(whole.raw());
  for (int64_t rank = 0; rank < model.size(); ++rank) {
    for (int64_t o = 0; o < outer; ++o) {
      std::memcpy(to + (o * model.size() + rank) * inner, from + (rank * outer + o) * inner,
                  static_cast<size_t>(inner));
    }
  }
  return whole;
}

// Tensors [E, ...] of this rank's experts, by layer; those of the decoder are packed when they are
// first used.
class ResidentExperts final : public ExpertSource {
 public:
  ResidentExperts(std::vector<ExpertWeights> layers, int64_t encoder_layers)
      : layers_(std::move(layers)), encoder_layers_(encoder_layers) {}

  ExpertWeights expert(int64_t layer, int64_t expert) override {
    const ExpertWeights& all = layers_[static_cast<size_t>(layer)];
    const auto plain = [&] {
      return ExpertWeights{all.wi[expert], all.gate ? all.gate[expert] : Tensor(), all.wo[expert]};
    };
    if (layer < encoder_layers_) return plain();
    const auto [found, missing] = packed_.try_emplace({layer, expert});
    if (missing) found->second = packed_expert(plain());
    return found->second;
  }

 private:
  std::vector<ExpertWeights> layers_;
  int64_t encoder_layers_;
  std::map<std::pair<int64_t, int64_t>, ExpertWeights> packed_;
};

Tensor weight_of(const Model& model, const std::string& name) {
  const Parameter* parameter = model.find(name);
  SW_CHECK(parameter != nullptr, internal, "generate: the model has no parameter '{}'", name);
  return whole_over_model(*parameter, model.mesh().model());
}

}  // namespace

DecodingWeights weights_of(const Model& model) {
  return collect_weights(model.config(),
                         [&](const std::string& name) { return weight_of(model, name); });
}

std::unique_ptr<ExpertSource> experts_of(const Model& model) {
  const ModelConfig& config = model.config();
  const bool gated = is_gated(config.activation);
  std::vector<ExpertWeights> layers;
  for (const std::string& prefix : sparse_layer_prefixes(config)) {
    layers.push_back({weight_of(model, prefix + (gated ? "wi_0" : "wi")),
                      gated ? weight_of(model, prefix + "wi_1") : Tensor(),
                      weight_of(model, prefix + "wo")});
  }
  return std::make_unique<ResidentExperts>(std::move(layers), sparse_encoder_layers(config));
}

}  // namespace sw
