#include "libswitch/generate/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/few_rows.h"
#include "libswitch/kernels/matmul.h"
#include "libswitch/kernels/norm.h"
#include "libswitch/nn/relative_bias.h"

namespace sw {
namespace {

const Stream kCpu{};

void multiply(std::initializer_list<kernels::FewRowsProduct> products) {
  kernels::few_rows_matmul(kCpu, std::span(products.begin(), products.size()));
}

// x [N, K] · w [K, M], as f32.
Tensor wide_product(const Tensor& x, const Tensor& w) {
  Tensor y = Tensor::empty({x.size(0), w.size(1)}, DType::f32);
  kernels::matmul(kCpu, y, x, kernels::Transpose::no, w, kernels::Transpose::no, Accum::write);
  return y;
}

// At least `rows` rows, with the first `used` of them kept.
void grow(Tensor& x, int64_t rows, int64_t width, int64_t used) {
  if (x.defined() && x.size(0) >= rows) return;
  Tensor larger =
      Tensor::empty({std::max(rows, x.defined() ? 2 * x.size(0) : 0), width}, DType::f32);
  if (used > 0) std::copy_n(x.data<float>(), used * width, larger.data<float>());
  x = larger;
}

// Row `id` of the embedding table as f32.
void copy_embedding(const Tensor& table, int32_t id, float* to) {
  const int64_t width = table.size(1);
  if (table.dtype() == DType::f32) {
    std::copy_n(table.data<float>() + id * width, width, to);
  } else {
    const bf16* from = table.data<bf16>() + id * width;
    for (int64_t d = 0; d < width; ++d) to[d] = static_cast<float>(from[d]);
  }
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const DecodingWeights& weights, SparseLayers& sparse)
    : config_(config), weights_(weights), sparse_(sparse) {
  layers_.resize(weights.decoder.blocks.size());
}

void Decoder::begin(const Encoded& encoded) {
  position_ = cached_ = 0;
  history_.clear();
  prompt_.resize(encoded.runs.size());
  std::iota(prompt_.begin(), prompt_.end(), 0);
  prompt_begin_.assign(1, 0);
  ordinals_.clear();
  for (const TokenRun& run : encoded.runs) {
    prompt_begin_.push_back(prompt_begin_.back() + run.count);
    ordinals_.push_back(run.ordinal);
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const DecodingWeights::Attention& cross = weights_.decoder.blocks[i].cross;
    layers_[i].cross_keys = wide_product(encoded.hidden, cross.k);
    layers_[i].cross_values = wide_product(encoded.hidden, cross.v);
  }
}

// Makes the rows of this step out of those of the last one.
void Decoder::follow(std::span<const int32_t> parents) {
  const auto rows = static_cast<int64_t>(parents.size());
  std::vector<int32_t> prompts;
  next_history_.clear(), history_begin_.assign(1, 0);
  cross_rows_.clear(), cross_begin_.assign(1, 0);
  runs_.clear();
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t parent = parents[static_cast<size_t>(r)];
    const int32_t prompt = prompt_[static_cast<size_t>(parent)];
    prompts.push_back(prompt);
    const auto earlier = history_.begin() + parent * position_;
    next_history_.insert(next_history_.end(), earlier, earlier + position_);
    next_history_.push_back(static_cast<int32_t>(cached_ + r));
    history_begin_.push_back(static_cast<int64_t>(next_history_.size()));
    const auto p = static_cast<size_t>(prompt);
    for (int64_t t = prompt_begin_[p]; t < prompt_begin_[p + 1]; ++t) {
      cross_rows_.push_back(static_cast<int32_t>(t));
    }
    cross_begin_.push_back(static_cast<int64_t>(cross_rows_.size()));
    runs_.push_back({ordinals_[p], position_, 1});
  }
  history_.swap(next_history_);
  prompt_.swap(prompts);
}

// Room for `rows` more cached rows, and the bias of one more position.
void Decoder::reserve(int64_t rows) {
  constexpr int64_t kFirstPositions = 16;
  const int64_t inner = config_.inner();
  const int64_t needed = cached_ + rows;
  for (Layer& layer : layers_) {
    const int64_t room = layer.keys.defined() ? needed : std::max(needed, kFirstPositions * rows);
    grow(layer.keys, room, inner, cached_);
    grow(layer.values, room, inner, cached_);
  }
  if (position_ >= distances_) {
    distances_ = std::max<int64_t>(64, 2 * distances_);
    const auto* table = weights_.decoder.relative_bias.data<float>();
    bias_by_distance_.resize(static_cast<size_t>(config_.heads * distances_));
    for (int64_t distance = 0; distance < distances_; ++distance) {
      const int64_t bucket = relative_bucket(-distance, false, config_.relative_buckets,
                                             config_.relative_max_distance);
      for (int64_t h = 0; h < config_.heads; ++h) {
        bias_by_distance_[static_cast<size_t>(h * distances_ + distance)] =
            table[h * config_.relative_buckets + bucket];
      }
    }
    bias_ = Tensor::empty({config_.heads, distances_}, DType::f32);
  }
  auto* bias = bias_.data<float>();
  for (int64_t h = 0; h < config_.heads; ++h) {
    for (int64_t j = 0; j <= position_; ++j) {
      bias[h * distances_ + j] =
          bias_by_distance_[static_cast<size_t>(h * distances_ + position_ - j)];
    }
  }
}

void Decoder::resize_workspace(int64_t rows) {
  const auto resize = [rows](Tensor& all, Tensor& now, int64_t width) {
    grow(all, rows, width, 0);
    now = all.slice(0, rows);
  };
  resize(all_.residual, now_.residual, config_.d_model);
  resize(all_.normed, now_.normed, config_.d_model);
  resize(all_.q, now_.q, config_.inner());
  resize(all_.mixed, now_.mixed, config_.inner());
  resize(all_.branch, now_.branch, config_.d_model);
  resize(all_.hidden, now_.hidden, config_.d_ff);
  if (is_gated(config_.activation)) resize(all_.gate, now_.gate, config_.d_ff);
  resize(all_.logits, now_.logits, config_.vocab_size);
  resize(all_.inverse, now_.inverse, 1);
}

const Tensor& Decoder::step(std::span<const int32_t> parents, std::span<const int32_t> tokens) {
  const auto rows = static_cast<int64_t>(parents.size());
  reserve(rows);
  follow(parents);
  resize_workspace(rows);
  Workspace& w = now_;
  Tensor inverse = w.inverse.view({rows});
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t id = tokens[static_cast<size_t>(r)];
    SW_CHECK(id >= 0 && id < weights_.embedding.size(0), internal, "decoder: token {} of {}", id,
             weights_.embedding.size(0));
    copy_embedding(weights_.embedding, id, w.residual.data<float>() + r * config_.d_model);
  }
  bool first = true;
  const auto norm = [&](const Tensor& scale) {
    kernels::residual_norm_forward(kCpu, w.residual, w.normed, inverse, w.residual,
                                   first ? Tensor() : w.branch, scale, Tensor(),
                                   config_.norm_epsilon);
    first = false;
  };
  const kernels::CachedRows earlier{history_begin_, history_}, encoder{cross_begin_, cross_rows_};
  for (size_t i = 0; i < layers_.size(); ++i) {
    const DecodingWeights::Block& block = weights_.decoder.blocks[i];
    Layer& layer = layers_[i];
    norm(block.self.norm);
    multiply({{w.q, w.normed, block.self.q},
              {layer.keys.slice(cached_, cached_ + rows), w.normed, block.self.k},
              {layer.values.slice(cached_, cached_ + rows), w.normed, block.self.v}});
    kernels::cached_attention(kCpu, w.mixed, w.q, layer.keys, layer.values, bias_, earlier,
                              config_.heads);
    multiply({{w.branch, w.mixed, block.self.o}});
    norm(block.cross.norm);
    multiply({{w.q, w.normed, block.cross.q}});
    kernels::cached_attention(kCpu, w.mixed, w.q, layer.cross_keys, layer.cross_values, Tensor(),
                              encoder, config_.heads);
    multiply({{w.branch, w.mixed, block.cross.o}});
    norm(block.norm);
    if (block.sparse) {
      sparse_.forward(w.branch, block, w.normed, runs_, true, true);
    } else {
      if (block.gate) {
        multiply({{w.hidden, w.normed, block.wi}, {w.gate, w.normed, block.gate}});
      } else {
        multiply({{w.hidden, w.normed, block.wi}});
      }
      activate(config_.activation, w.hidden, w.gate);
      multiply({{w.branch, w.hidden, block.wo}});
    }
  }
  norm(weights_.decoder.final_norm);
  if (config_.tied_embeddings) {
    const auto factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.d_model)));
    auto* hidden = w.normed.data<float>();
    for (int64_t j = 0; j < rows * config_.d_model; ++j) hidden[j] *= factor;
  }
  multiply({{w.logits, w.normed, weights_.head}});
  cached_ += rows;
  ++position_;
  return w.logits;
}

}  // namespace sw
