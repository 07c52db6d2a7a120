// The decoder one position at a time: keys and values of earlier positions are kept, those of the
// encoder's output are computed once.
#pragma once

#include <span>
#include <vector>

#include "libswitch/generate/encoder.h"

namespace sw {

class Decoder {
 public:
  /// All must outlive it; weights as packed_for_steps gives them.
  Decoder(const ModelConfig& config, const DecodingWeights& weights, SparseLayers& sparse);

  /// Starts on these prompts, with one row each that has no tokens yet.
  void begin(const Encoded& encoded);

  /// Row r goes on where row parents[r] of the last step (at first: prompt parents[r]) stopped,
  /// with tokens[r]; a row may be gone on from by none, one or several. Returns the logits [R, V]
  /// f32 of what comes next, valid until the next step. The bits of a row follow from its prompt
  /// and its tokens alone.
  const Tensor& step(std::span<const int32_t> parents, std::span<const int32_t> tokens);

  int64_t position() const { return position_; }

 private:
  struct Layer {
    Tensor keys, values;              // [cached rows, inner] f32
    Tensor cross_keys, cross_values;  // [tokens, inner] f32
  };
  void follow(std::span<const int32_t> parents);
  void reserve(int64_t rows);
  // Tensors of a step with `rows` rows, kept for the next one.
  struct Workspace {
    Tensor residual, normed, inverse, q, mixed, branch, hidden, gate, logits;
  };
  void resize_workspace(int64_t rows);

  const ModelConfig& config_;
  const DecodingWeights& weights_;
  SparseLayers& sparse_;

  std::vector<Layer> layers_;
  int64_t position_ = 0;
  int64_t cached_ = 0;                           // rows in the caches
  std::vector<int32_t> prompt_;                  // of every row
  std::vector<int32_t> history_, next_history_;  // [R, position]: cached rows of earlier tokens
  std::vector<int64_t> history_begin_;           // [R+1]
  std::vector<int64_t> prompt_begin_;            // [prompts+1] into the encoder's tokens
  std::vector<int32_t> cross_rows_;
  std::vector<int64_t> cross_begin_;
  std::vector<uint64_t> ordinals_;
  std::vector<TokenRun> runs_;
  Tensor bias_;                          // [H, positions so far]: column j is for cached position j
  std::vector<float> bias_by_distance_;  // [H, distances]
  int64_t distances_ = 0;
  Workspace all_, now_;
};

}  // namespace sw
