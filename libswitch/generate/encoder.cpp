#include "libswitch/generate/encoder.h"

#include "libswitch/kernels/attention.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/embedding.h"
#include "libswitch/kernels/matmul.h"
#include "libswitch/kernels/norm.h"
#include "libswitch/nn/relative_bias.h"

namespace sw {
namespace {

const Stream kCpu{};

// x [N, K] · w [K, M] in x's dtype.
Tensor product(const Tensor& x, const Tensor& w) {
  Tensor y = Tensor::empty({x.size(0), w.size(1)}, x.dtype());
  kernels::matmul(kCpu, y, x, kernels::Transpose::no, w, kernels::Transpose::no, Accum::write);
  return y;
}

}  // namespace

Encoded encode(const ModelConfig& config, const DecodingWeights& weights, SparseLayers& sparse,
               std::span<const std::span<const int32_t>> prompts,
               std::span<const uint64_t> ordinals) {
  Encoded out;
  std::vector<int32_t> ids;
  for (size_t i = 0; i < prompts.size(); ++i) {
    out.runs.push_back({ordinals[i], 0, static_cast<int64_t>(prompts[i].size())});
    ids.insert(ids.end(), prompts[i].begin(), prompts[i].end());
  }
  const auto n = static_cast<int64_t>(ids.size());
  const DType dtype = weights.embedding.dtype();
  Tensor residual = Tensor::empty({n, config.d_model}, dtype);
  kernels::embedding_forward(kCpu, residual, weights.embedding, Tensor::from({n}, ids),
                             kernels::VocabularyPart{});
  // T5's bias, for the lengths there are.
  std::vector<Tensor> biases;
  for (const TokenRun& run : out.runs) {
    const Tensor buckets = relative_buckets(run.count, run.count, true, config.relative_buckets,
                                            config.relative_max_distance);
    biases.push_back(Tensor::empty({config.heads, buckets.size(0)}, DType::f32));
    kernels::relative_bias_forward(kCpu, biases.back(), weights.encoder.relative_bias, buckets);
  }

  Tensor normed = Tensor::empty(residual.shape(), dtype);
  Tensor inverse = Tensor::empty({n}, DType::f32);
  Tensor branch;  // what the last sublayer adds
  const auto norm = [&](const Tensor& scale) {
    kernels::residual_norm_forward(kCpu, residual, normed, inverse, residual, branch, scale,
                                   Tensor(), config.norm_epsilon);
  };
  kernels::AttentionParams params;
  params.batch = 1, params.heads = config.heads, params.head_dim = config.d_kv;
  for (const DecodingWeights::Block& block : weights.encoder.blocks) {
    norm(block.self.norm);
    const Tensor q = product(normed, block.self.q), k = product(normed, block.self.k),
                 v = product(normed, block.self.v);
    Tensor mixed = Tensor::empty(q.shape(), dtype);
    int64_t first = 0;
    for (size_t i = 0; i < out.runs.size(); ++i) {
      const int64_t length = out.runs[i].count, end = first + length;
      params.query_length = params.key_length = length;
      Tensor rows = mixed.slice(first, end);
      Tensor log_sum_exp = Tensor::empty({1, config.heads, length}, DType::f32);
      kernels::attention_forward(kCpu, rows, log_sum_exp, q.slice(first, end), k.slice(first, end),
                                 v.slice(first, end), biases[i], Tensor(), Tensor(), params);
      first = end;
    }
    branch = product(mixed, block.self.o);
    norm(block.norm);
    if (block.sparse) {
      branch = Tensor::empty(residual.shape(), dtype);
      sparse.forward(branch, block, normed, out.runs, false, false);
    } else {
      Tensor hidden = product(normed, block.wi);
      activate(config.activation, hidden, block.gate ? product(normed, block.gate) : Tensor());
      branch = product(hidden, block.wo);
    }
  }
  norm(weights.encoder.final_norm);
  out.hidden = normed;
  return out;
}

}  // namespace sw
