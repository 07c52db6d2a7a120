// The sublayers of a T5 block: each reads the normed residual stream and returns what is added to
// it.
#pragma once

#include <memory>
#include <vector>

#include "libswitch/moe/route.h"
#include "libswitch/nn/batch.h"
#include "libswitch/nn/config.h"
#include "libswitch/tape/context.h"
#include "libswitch/tape/parameter.h"

namespace sw {

/// Places of randomness within one sublayer; the sublayer's ordinal in the model makes them unique.
enum class Site : uint64_t {
  attention_weights,
  sublayer_output,
  hidden,
  router_input,
  router,
  embedding,
  final
};
inline uint64_t site(uint64_t sublayer, Site place) {
  return sublayer * 16 + static_cast<uint64_t>(place);
}

struct AttentionLayer {
  uint64_t ordinal = 0;  // of the sublayer in the model
  Parameter *norm = nullptr, *q = nullptr, *k = nullptr, *v = nullptr, *o = nullptr;

  /// x [B·T, D] normed; keys [B·S, D]: undefined for self-attention, else the encoder's output as
  /// ops::copy_to_model gives it; bias [H, T+S-1] or undefined. Of M model ranks each computes H/M
  /// heads, and has their bias only.
  Var forward(Context& context, const ModelConfig& config, const Var& x, const Var& keys,
              const Var& bias, const Tensor& query_segments, const Tensor& key_segments,
              int64_t batch, int64_t query_length, int64_t key_length, bool causal) const;
};

/// Position-wise feed-forward layer; `gate` is wi_1 where the activation has one.
struct FeedForwardLayer {
  uint64_t ordinal = 0;
  Parameter *norm = nullptr, *wi = nullptr, *gate = nullptr, *wo = nullptr;

  Var forward(Context& context, const ModelConfig& config, const Var& x, int64_t length) const;
};

/// The sparse replacement of the feed-forward layer (Fedus et al. 2022, section 2).
struct SwitchLayer {
  uint64_t ordinal = 0;
  std::string name;  // "encoder/block_001"
  const Router* router = nullptr;
  Parameter *norm = nullptr, *router_weight = nullptr, *wi = nullptr, *gate = nullptr,
            *wo = nullptr;
  Parameter* router_bias = nullptr;  // null: none

  struct Output {
    Var branch;  // [N, D]
    std::shared_ptr<ops::Routing> routing;
  };
  /// x [N, D] normed, N = rows · length; nonpadding [N] u8 or undefined.
  Output forward(Context& context, const ModelConfig& config, const Var& x, const ModelInput& input,
                 const Tensor& nonpadding, int64_t nonpadding_total, int64_t length) const;

 private:
  /// The experts' answers to the plan's rows [R, D], wherever the experts are.
  Var run_experts(Context& context, const ModelConfig& config, const Var& rows,
                  const ops::Routing& routing, int64_t first_token) const;
};

/// The router that `config` asks for.
RouterConfig router_config(const ModelConfig& config);

}  // namespace sw
