// What a training will need, before anything is allocated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libswitch/comm/mesh.h"
#include "libswitch/nn/config.h"
#include "libswitch/tensor/dtype.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/step.h"

namespace sw {

struct TrainingShape {
  ModelConfig model;
  OptimizerConfig optimizer;
  DType compute = DType::f32;
  int64_t rows = 0, input_length = 0, target_length = 0;
  StepConfig step;
  MeshShape mesh;
  bool background_saves = false;
  std::vector<ModelConfig> frozen = {};  // run forward alongside (a teacher), without gradients
  int64_t data_bytes = 0;                // of examples in memory
  int64_t evaluation_bytes = 0;          // what an evaluation adds, when no step is under way
};

struct TrainingEstimate {
  ParameterCount parameters;
  MeshShape mesh;
  // Memory of a rank, the one with the most.
  int64_t weight_bytes = 0;    // master and working copies
  int64_t gradient_bytes = 0;  // of one set, and what travels between ranks
  int64_t optimizer_bytes = 0;
  // And scratch: what a step's peak, or an evaluation, adds to the gradients.
  int64_t activation_bytes = 0;
  int64_t copy_bytes = 0;     // of weights and optimizer state for saves in the background
  int64_t data_bytes = 0;     // examples
  int64_t process_bytes = 0;  // libraries, buffers

  int64_t checkpoint_bytes = 0;       // the file
  int64_t checkpoint_part_bytes = 0;  // of these, what the rank writes that writes most
  double step_flops = 0;  // forward and backward, frozen models' too; recomputation not counted
  int64_t total_bytes() const {
    return weight_bytes + gradient_bytes + optimizer_bytes + activation_bytes + copy_bytes +
           data_bytes + process_bytes;
  }
};

TrainingEstimate estimate_training(const TrainingShape& shape);

/// Operations of a training step: three forward passes.
double training_flops(const ModelConfig& model, int64_t rows, int64_t input_length,
                      int64_t target_length);

}  // namespace sw
