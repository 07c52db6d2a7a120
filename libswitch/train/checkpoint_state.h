// A training's state from a checkpoint file (to one: checkpoint_save.h). A checkpoint holds whole
// tensors, so any mesh reads what any other wrote.
#pragma once

#include <memory>
#include <optional>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/nn/model.h"
#include "libswitch/train/optimizer.h"

namespace sw {

/// Reads this rank's parts of all weights. All ranks of the model's mesh call it, and all throw
/// when one does: corrupt, naming the tensor, when the file holds another model (before any byte is
/// read) or is damaged.
void read_weights(const CheckpointReader& reader, Model& model);
/// The same for all optimizer state; corrupt when the file holds none or another optimizer's.
void read_optimizer(const CheckpointReader& reader, Optimizer& optimizer);

/// The model that a checkpoint holds, from its configuration.
ModelConfig model_config(const CheckpointReader& reader);
/// The precision of activations in its training; f32 where the file does not say.
DType trained_dtype(const CheckpointReader& reader);
/// That model with its weights; `compute`: by default the precision it was trained in. All ranks of
/// `mesh`, which must outlive the model, call it.
std::unique_ptr<Model> load_model(const CheckpointReader& reader,
                                  std::optional<DType> compute = std::nullopt,
                                  const Mesh& mesh = single_mesh());

}  // namespace sw
