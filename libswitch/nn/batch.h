// One shard of a batch in the form the model reads: ids, masks and segments on the device.
#pragma once

#include <cstdint>
#include <span>

#include "libswitch/nn/conventions.h"
#include "libswitch/tensor/tensor.h"

namespace sw {

/// Rows of token ids as they come from data (0 = padding); segments only when several examples are
/// packed in a row.
struct TokenRows {
  int64_t rows = 0, input_length = 0, target_length = 0;
  std::span<const int32_t> inputs;   // [rows · input_length]
  std::span<const int32_t> targets;  // [rows · target_length]; 0, or any negative id: no target
  std::span<const int32_t> input_segments;  // like inputs, 1, 2, ..; 0 = padding; empty: not packed
  std::span<const int32_t> target_segments;  // like targets
  std::span<const uint8_t> input_mask;       // like inputs, 0 = padding; empty: padding is id 0
  int32_t first_target_id = 1;  // 0 where padding is written as a negative label (Hugging Face)
};

struct ModelInput {
  int64_t rows = 0, input_length = 0, target_length = 0;  // B, S, T
  Tensor inputs;                                          // [B·S] i32
  Tensor decoder_inputs;  // [B·T] i32: targets shifted right, 0 where a segment starts
  Tensor targets;         // [B·T] i32, -1: no target
  // Attention: a query sees a key iff their segments are equal. Undefined: no restriction.
  Tensor encoder_query_segments, encoder_key_segments;  // [B, S]
  Tensor decoder_segments;                              // [B, T]
  Tensor cross_query_segments, cross_key_segments;      // [B, T], [B, S]
  // 0 = padding; undefined: no padding in this shard.
  Tensor input_nonpadding;   // [B·S] u8
  Tensor target_nonpadding;  // [B·T] u8
  int64_t real_inputs = 0, real_targets = 0;

  // The step's batch that this shard is part of.
  int64_t shards = 1;     // equal shards
  int64_t first_row = 0;  // global index of row 0
  double loss_denominator =
      0;  // of the cross-entropy: positions or real targets of the whole batch
  int64_t real_inputs_total = 0;  // of the whole batch (router z-loss)
  int64_t real_targets_total = 0;
};

/// Real (non-padding) inputs and targets of rows, by the rules of TokenRows.
struct RealTokens {
  int64_t inputs = 0, targets = 0;
};
RealTokens count_real_tokens(const TokenRows& rows);

/// Masks, segments and shifted targets of one shard. `whole` counts the real tokens of the step's
/// whole batch, of which this is shard number `shard` of `shards`. Throws usage for sizes that do
/// not fit.
ModelInput make_model_input(const TokenRows& rows, const Conventions& conventions,
                            int64_t shards = 1, int64_t shard = 0,
                            const RealTokens* whole = nullptr);

}  // namespace sw
