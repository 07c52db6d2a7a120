// What a rank needs, estimated before and counted after.
#include "libswitch/train/estimate.h"

#include <gtest/gtest.h>

#include "libswitch/base/rng.h"
#include "libswitch/tape/placement.h"
#include "libswitch/tensor/allocator.h"
#include "tests/support/mesh_case.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

class Estimate : public testing::TrainingTest {};

TEST_F(Estimate, CountsWeightsStateAndPartsOfACheckpointOfTheFullestRank) {
  for (const MeshShape& mesh_shape : testing::all_meshes()) {
    for (const bool shard : {false, true}) {
      for (const auto kind : {OptimizerConfig::Kind::adafactor, OptimizerConfig::Kind::adamw}) {
        SCOPED_TRACE(fmt::format("{} {} {}", mesh_shape.str(), shard, optimizer_name(kind)));
        TrainingShape shape;
        shape.model = testing::small_model();
        shape.optimizer.kind = kind;
        shape.optimizer.shard = shard;
        shape.optimizer.min_factored_size = 16;
        shape.compute = DType::bf16;
        shape.rows = 8, shape.input_length = 12, shape.target_length = 6;
        shape.step.canonical_ranks = 4;
        shape.mesh = mesh_shape;
        const TrainingEstimate estimate = estimate_training(shape);
        testing::on_mesh(mesh_shape, [&](const Mesh& mesh) {
          Model model(shape.model, shape.compute, {}, mesh);
          const auto optimizer = make_optimizer(shape.optimizer, model);
          int64_t weights = 0, state = 0, written = 0;
          for (auto& parameter : model.parameters()) {
            weights += parameter->master().bytes();
            if (parameter->working_copy()) weights += parameter->working_copy().bytes();
            if (writes_part(parameter->placement(), mesh)) written += parameter->master().bytes();
          }
          for (const OptimizerState& s : optimizer->states()) {
            if (s.tensor) state += s.tensor.bytes();
            if (s.writes) written += s.tensor.bytes();
          }
          Group& world = mesh.world();
          EXPECT_EQ(world.all_reduce_value(weights, ReduceOp::max), estimate.weight_bytes);
          EXPECT_EQ(world.all_reduce_value(state, ReduceOp::max), estimate.optimizer_bytes);
          EXPECT_EQ(world.all_reduce_value(written, ReduceOp::max), estimate.checkpoint_part_bytes);
        });
      }
    }
  }
}

// What tensors of two whole steps take at their peak.
int64_t measured_peak(const TrainingShape& shape) {
  const int64_t before = allocator_stats().in_use_bytes;
  reset_peak();
  Model model(shape.model, shape.compute);
  model.initialize(0);
  const auto optimizer = make_optimizer(shape.optimizer, model);
  std::vector<int32_t> inputs(static_cast<size_t>(shape.rows * shape.input_length));
  std::vector<int32_t> targets(static_cast<size_t>(shape.rows * shape.target_length));
  RngStream rng(rng_key(3, RngPurpose::test));
  const auto ids = static_cast<uint64_t>(shape.model.vocab_size - 2);
  for (auto* tokens : {&inputs, &targets}) {
    for (int32_t& token : *tokens) token = 2 + static_cast<int32_t>(rng.below(ids));
  }
  TokenRows rows;
  rows.rows = shape.rows, rows.input_length = shape.input_length;
  rows.target_length = shape.target_length;
  rows.inputs = inputs, rows.targets = targets;
  for (int64_t step = 1; step <= 2; ++step) {
    training_step(model, *optimizer, rows, step, 0.01, shape.step);
  }
  return allocator_stats().peak_bytes - before;
}

TEST_F(Estimate, OfTensorsIsWithinATenthOfTheirPeak) {
  for (const int64_t experts : {0, 8}) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const auto recompute : {Recompute::none, Recompute::layer, Recompute::full}) {
        for (const int64_t shards : {1, 4}) {
          TrainingShape shape;
          shape.model = testing::small_model();
          shape.model.vocab_size = 1024;
          shape.model.d_model = 128, shape.model.d_kv = 32, shape.model.d_ff = 512;
          shape.model.encoder_layers = shape.model.decoder_layers = 3;
          shape.model.experts = experts;
          shape.model.dropout = shards == 1 ? 0 : 0.1;
          shape.compute = compute;
          shape.rows = 8, shape.input_length = 128, shape.target_length = 40;
          shape.step.recompute = recompute;
          shape.step.canonical_ranks = shards;
          const TrainingEstimate estimate = estimate_training(shape);
          const auto expected =
              static_cast<double>(estimate.total_bytes() - estimate.process_bytes);
          const auto peak = static_cast<double>(measured_peak(shape));
          EXPECT_NEAR(expected / peak, 1, 0.1) << fmt::format(
              "{} experts, {}, recompute {}, {} shards: {:.2f} MB estimated, {:.2f} MB", experts,
              dtype_name(compute), static_cast<int>(recompute), shards, 1e-6 * expected,
              1e-6 * peak);
        }
      }
    }
  }
}

}  // namespace
}  // namespace sw
