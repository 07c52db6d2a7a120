// The weights of a model as decoding reads them: whole matrices on this rank, but for the experts,
// which come one at a time from where they are.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/kernels/matmul.h"
#include "libswitch/nn/model.h"

namespace sw {

/// One expert's matrices: wi [D, F], gate [D, F] (wi_1, undefined where none gates), wo [F, D]; in
/// the decoder as panels (kernels/few_rows.h). The tensors keep them alive.
struct ExpertWeights {
  Tensor wi, gate, wo;
};

/// The experts that this rank computes.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;
  /// Expert `expert`, counted from this rank's first, of sparse layer `layer`, counted over encoder
  /// and then decoder. One thread at a time.
  virtual ExpertWeights expert(int64_t layer, int64_t expert) = 0;
  /// How many of them may be held at a time.
  virtual int64_t at_once() const { return std::numeric_limits<int64_t>::max(); }
};

struct DecodingWeights {
  struct Attention {
    Tensor norm, q, k, v, o;
  };
  struct Block {
    Attention self, cross;  // cross: decoder only
    bool sparse = false;
    Tensor norm;                 // of the feed-forward layer
    Tensor wi, gate, wo;         // dense
    int64_t layer = 0;           // sparse: which one
    Tensor router, router_bias;  // [D, E] master, as panels once packed; [E] or undefined
  };
  struct Stack {
    std::vector<Block> blocks;
    Tensor relative_bias;  // [H, buckets] master
    Tensor final_norm;
  };
  Tensor embedding;  // [V, D]
  Tensor head;       // [V, D] (the embedding when tied)
  Stack encoder, decoder;
};

/// "encoder/block_001/moe/" and so on: the sparse layers in their order.
std::vector<std::string> sparse_layer_prefixes(const ModelConfig& config);
/// How many of them are the encoder's.
int64_t sparse_encoder_layers(const ModelConfig& config);

/// Reads them by name (nn/config.h, parameter_specs); experts are not asked for.
DecodingWeights collect_weights(const ModelConfig& config,
                                const std::function<Tensor(const std::string& name)>& read);

/// The matrices that steps of decoding read, as panels: those of the decoder but for cross.k and
/// cross.v, the routers and the head. The others are shared.
DecodingWeights packed_for_steps(DecodingWeights weights);
Tensor packed(const Tensor& matrix, kernels::Transpose transpose = kernels::Transpose::no);
ExpertWeights packed_expert(const ExpertWeights& expert);

/// Those of a model in memory: shared, not copied. Only under a model axis, where every rank has a
/// part of each matrix, are they put together in a copy; all ranks of the mesh call it.
DecodingWeights weights_of(const Model& model);
std::unique_ptr<ExpertSource> experts_of(const Model& model);

}  // namespace sw
