// The encoder over prompts of any lengths, without padding: tokens of all prompts lie one after the
// other, and a prompt's result has the bits it would have alone.
#pragma once

#include <span>
#include <vector>

#include "libswitch/generate/sparse_layer.h"

namespace sw {

struct Encoded {
  Tensor hidden;               // [tokens, D] in the model's compute precision, normed
  std::vector<TokenRun> runs;  // one a prompt
};

/// Prompts of at least one token each, all in the vocabulary, with their ordinals.
Encoded encode(const ModelConfig& config, const DecodingWeights& weights, SparseLayers& sparse,
               std::span<const std::span<const int32_t>> prompts,
               std::span<const uint64_t> ordinals);

}  // namespace sw
