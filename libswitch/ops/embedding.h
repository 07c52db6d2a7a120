// Token embedding and the output loss, the two users of the vocabulary table.
#pragma once

#include "libswitch/kernels/cross_entropy.h"
#include "libswitch/tape/context.h"

namespace sw::ops {

/// The rows of the whole vocabulary that this rank's table holds.
kernels::VocabularyPart vocabulary_part(const Context& context, const Var& table);

/// y [N, D] = table[ids]; table [V, D], or this rank's [V/M, D] of M model ranks; ids [N] i32 in
/// [0, V).
Var embedding(Context& context, const Var& table, const Tensor& ids);

/// Cross-entropy of softmax(logit_scale·hidden·tableᵀ) (kernels/cross_entropy.h). Its gradient is
/// that of sums.loss with weight 1: the loss is the root of the backward pass. The table's part is
/// formed here, in the forward pass, while the logits are at hand. `logits` [N, V] master is filled
/// when defined. table [V, D], or this rank's [V/M, D] of M model ranks: sums, logits and the
/// gradient of hidden are alike on all of them.
kernels::CrossEntropySums cross_entropy(Context& context, const Var& hidden, const Var& table,
                                        const Tensor& targets, kernels::CrossEntropyParams params,
                                        Tensor logits = {});

}  // namespace sw::ops
