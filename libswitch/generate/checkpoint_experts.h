// Decoding from a checkpoint file without a Model: weights that every token needs are read at the
// start, an expert when it is first used. A bounded cache keeps the last used ones, so that a model
// larger than memory runs (its experts are nearly all of it).
#pragma once

#include <list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libswitch/generate/weights.h"
#include "libswitch/io/checkpoint_reader.h"

namespace sw {

/// All weights but the experts, in `compute` precision (f32 or bf16) where training has them so.
/// Throws corrupt, naming the tensor, when the file does not hold the model of `config` or is
/// damaged.
DecodingWeights read_decoding_weights(const CheckpointReader& reader, const ModelConfig& config,
                                      DType compute);

class CheckpointExperts final : public ExpertSource {
 public:
  /// Keeps at most max_bytes of experts, but at least one. `reader` must outlive it, and have
  /// passed read_decoding_weights for the same configuration.
  CheckpointExperts(const CheckpointReader& reader, const ModelConfig& config, DType compute,
                    int64_t max_bytes);

  /// Every tile is verified as it is read: throws corrupt.
  ExpertWeights expert(int64_t layer, int64_t expert) override;
  int64_t at_once() const override;

  struct Use {
    int64_t experts = 0;     // of the model, over all layers
    int64_t used = 0;        // of these, that were asked for at least once
    int64_t asked = 0;       // times that one was asked for
    int64_t read = 0;        // times that one was read from the file
    int64_t bytes_read = 0;  // of the file
    int64_t bytes_kept = 0;  // in memory now
  };
  const Use& use() const { return use_; }
  /// Memory of one expert.
  int64_t expert_bytes() const { return expert_bytes_; }

 private:
  using Key = std::pair<int64_t, int64_t>;  // layer, expert
  struct Entry {
    ExpertWeights weights;
    std::list<Key>::iterator place;
  };
  Tensor read(const std::string& path, int64_t expert, const Shape& shape);

  const CheckpointReader& reader_;
  DType compute_;
  int64_t max_bytes_, expert_bytes_ = 0;
  Shape wi_shape_, wo_shape_;
  bool gated_ = false;
  int64_t experts_ = 0, encoder_layers_ = 0;
  std::vector<std::string> layers_;  // "/model/encoder/block_001/moe/"
  std::list<Key> order_;             // last used first
  std::map<Key, Entry> kept_;
  std::vector<char> seen_;  // [layers · experts]
  Use use_;
};

}  // namespace sw
