// The tensors of a Hugging Face model that a checkpoint of ours makes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/io/name_map.h"
#include "libswitch/io/tensor_archive.h"
#include "libswitch/nn/config.h"

namespace sw {

class ExportPlan {
 public:
  /// `reader` must outlive the plan. Throws corrupt when it lacks a tensor of `model` or has it in
  /// another shape, usage for a dtype that Hugging Face has not.
  ExportPlan(const CheckpointReader& reader, const ModelConfig& model, HfFamily family);

  struct Source {
    std::string parameter;  // of ours, "encoder/block_001/moe/wi"
    int64_t expert = -1;
    bool transpose = false;
  };
  /// In the order of a state dict; tied tensors once, as shared.weight, but for the embeddings of a
  /// Switch model with a head of its own.
  const std::vector<ArchiveTensor>& tensors() const { return tensors_; }
  const Source& source(size_t index) const { return sources_.at(index); }
  int64_t bytes() const;

  /// `bytes` bytes of a tensor of theirs from `first_byte` on.
  using Bytes = std::function<void(int64_t first_byte, const void* data, int64_t bytes)>;
  /// Gives all of tensor `index` in ascending order, whole rows at a time. Holds one tensor (where
  /// it is the transpose of ours) and at most 64 MiB, or one row.
  void stream(size_t index, const Bytes& bytes) const;

 private:
  const CheckpointReader& reader_;
  std::vector<ArchiveTensor> tensors_;
  std::vector<Source> sources_;
};

}  // namespace sw
