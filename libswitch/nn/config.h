// Everything that defines a model: sizes, sparsity, router, regularisation, conventions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libswitch/kernels/activation.h"
#include "libswitch/nn/conventions.h"
#include "libswitch/tape/parameter.h"

namespace sw {

/// Of the feed-forward layers: alone, or of one product that gates another (Shazeer 2020). gelu_new
/// and geglu have the tanh approximation of GELU, as T5 v1.1 does.
enum class Activation { relu, gelu, gelu_new, silu, reglu, geglu, swiglu };

/// Whether layers have two input matrices: wi_0, which is activated, and wi_1.
bool is_gated(Activation activation);
kernels::Curve curve_of(Activation activation);

struct ModelConfig {
  /// Sizes beyond any use. Whoever names more, in an option or in a damaged file, is told so before
  /// the sizes of parameters overflow or a list of all layers fills the memory.
  static constexpr int64_t kMaxWidth = 1 << 20, kMaxVocabulary = int64_t{1} << 31,
                           kMaxLayers = 4096, kMaxExperts = 1 << 20;

  // Backbone (Raffel et al. 2020). Dimension letters: V D H F.
  int64_t vocab_size = 32128;  // rows of the embedding table
  int64_t d_model = 128;
  int64_t d_kv = 32;  // per head; heads · d_kv need not equal d_model
  int64_t heads = 4;
  int64_t d_ff = 512;
  int64_t encoder_layers = 2;
  int64_t decoder_layers = 2;
  Activation activation = Activation::relu;
  bool tied_embeddings = true;  // output logits from the embedding table, scaled by d_model^-1/2
  int64_t relative_buckets = 32;
  int64_t relative_max_distance = 128;
  double norm_epsilon = 1e-6;

  // Sparsity: layer i is sparse iff step > 0 and i mod step == offset, 0-based, in each stack.
  int64_t experts = 0;  // 0: a dense model
  int64_t encoder_sparse_step = 2, encoder_sparse_offset = 1;
  int64_t decoder_sparse_step = 2, decoder_sparse_offset = 1;

  // Router (Fedus et al. 2022, section 2).
  std::string router = "switch";  // switch | top2 | ntlb
  double capacity_factor = 1.25, eval_capacity_factor = 2.0;
  int64_t min_capacity = 4;
  int64_t expert_capacity = 64;   // tokens per expert and row under the `hf` capacity rule
  int64_t max_group_size = 8192;  // tokens per routing group
  double aux_loss = 1e-2;
  double router_z_loss = 0;  // weight of the router z-loss itself
  double jitter = 1e-2;
  std::string second_policy = "random";  // top2: all | none | threshold | random
  double second_threshold = 0.2;
  int64_t ntlb_k = 4;
  bool router_bias = false;          // a bias on the router's logits (Hugging Face can have one)
  std::string selection = "argmax";  // switch: argmax | sample

  // Training-time regularisation and losses.
  double dropout = 0, expert_dropout = 0, input_dropout = 0;
  double output_z_loss = 1e-4, label_smoothing = 0;
  double init_scale = 0.1;

  Conventions conventions;

  bool encoder_layer_is_sparse(int64_t layer) const {
    return experts > 0 && encoder_sparse_step > 0 &&
           layer % encoder_sparse_step == encoder_sparse_offset;
  }
  bool decoder_layer_is_sparse(int64_t layer) const {
    return experts > 0 && decoder_sparse_step > 0 &&
           layer % decoder_sparse_step == decoder_sparse_offset;
  }
  int64_t inner() const { return heads * d_kv; }
  /// Throws usage naming the field, its value and what is allowed.
  void validate() const;
};

/// All parameters in canonical order (embedding, encoder, decoder, head), without allocating
/// anything.
std::vector<ParameterSpec> parameter_specs(const ModelConfig& config);

struct ParameterCount {
  int64_t total = 0;
  int64_t active = 0;  // used by one token: all but the experts it is not routed to
};
ParameterCount count_parameters(const ModelConfig& config);

/// Floating-point operations (multiply and add count as two) of one forward pass over one pair of
/// sequences: all matrix products with weights, attention products in full, routers and head
/// included. A training step is three times that.
double forward_flops(const ModelConfig& config, int64_t input_length, int64_t target_length);

/// The same by the count behind the paper's Table 9 ("FLOPs/seq"): cross-attention keys and values
/// counted per target token, attention products at half, routers left out.
double paper_flops(const ModelConfig& config, int64_t input_length, int64_t target_length);

}  // namespace sw
