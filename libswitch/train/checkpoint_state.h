// A training's state to and from a checkpoint file.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/io/checkpoint_writer.h"
#include "libswitch/nn/model.h"
#include "libswitch/train/optimizer.h"

namespace sw {

/// Tensors of a checkpoint: /model/<parameter> in master precision, /optim/<parameter>/<state>.
std::vector<TensorEntry> checkpoint_entries(const Model& model, const Optimizer& optimizer);

/// Writes weights, optimizer state, `meta` and `telemetry` to `file`, which appears only when it is
/// whole. Fills in the counts of parameters. Throws cannot_create, io.
CommittedCheckpoint write_checkpoint(const std::filesystem::path& file, const Model& model,
                                     const Optimizer& optimizer, CheckpointMeta meta,
                                     const Telemetry& telemetry, FileCalls calls = {});

/// Reads all weights into `model`. Throws corrupt, naming the tensor, when the file holds another
/// model.
void read_weights(const CheckpointReader& reader, Model& model);
/// Reads all optimizer state. Throws corrupt when the file holds none or another optimizer's.
void read_optimizer(const CheckpointReader& reader, Optimizer& optimizer);

/// The model that a checkpoint holds, built from its configuration, with its weights. `compute`: by
/// default the precision it was trained in.
std::unique_ptr<Model> load_model(const CheckpointReader& reader,
                                  std::optional<DType> compute = std::nullopt);

}  // namespace sw
