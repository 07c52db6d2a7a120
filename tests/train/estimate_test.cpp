// What a rank needs, estimated before and counted after.
#include "libswitch/train/estimate.h"

#include <gtest/gtest.h>

#include "libswitch/tape/placement.h"
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

}  // namespace
}  // namespace sw
