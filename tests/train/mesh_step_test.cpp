// Training steps on meshes of threads against one rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <mutex>

#include "libswitch/base/parallel.h"
#include "libswitch/comm/local/threads.h"
#include "libswitch/train/evaluation.h"
#include "libswitch/train/step.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using testing::made_up_batch;
using testing::message_of;
using testing::rows_of;
using testing::small_model;

struct Trained {
  std::vector<double> losses, norms;
  std::vector<int64_t> dropped;                // over all layers, by step
  std::vector<std::vector<int64_t>> routed;    // choices and rows of every expert, by step
  std::map<std::string, std::string> weights;  // bits of the whole parameter
};

struct Training {
  ModelConfig model = small_model();
  StepConfig step;
  OptimizerConfig optimizer;
  DType compute = DType::f32;
  int64_t steps = 4, rows = 16;
};

// Copies a rank's part of a parameter into the whole.
void put_part(const Parameter& parameter, std::string& whole) {
  const Tensor& part = parameter.master();
  const Shape& shape = parameter.spec().shape;
  const int64_t element = element_bytes(part.dtype());
  whole.resize(static_cast<size_t>(shape.elements() * element));
  std::array<int64_t, 4> strides{}, counts{1, 1, 1, 1};
  for (int d = shape.rank() - 1, stride = 1; d >= 0; stride *= static_cast<int>(shape[d--])) {
    strides[static_cast<size_t>(d)] = stride;
  }
  for (int d = 0; d < part.rank(); ++d) counts[static_cast<size_t>(d)] = part.size(d);
  const auto& start = parameter.rectangle().start;
  const char* from = static_cast<const char*>(part.raw());
  for (int64_t i = 0; i < counts[0]; ++i) {
    for (int64_t j = 0; j < counts[1]; ++j) {
      for (int64_t k = 0; k < counts[2]; ++k, from += element) {
        const int64_t at =
            (start[0] + i) * strides[0] + (start[1] + j) * strides[1] + (start[2] + k) * strides[2];
        std::memcpy(whole.data() + at * element, from, static_cast<size_t>(element));
      }
    }
  }
}

Trained train(const Training& training, const MeshShape& shape) {
  Trained out;
  std::mutex mutex;
  run_ranks(shape.ranks(), [&](World& world) {
    const Mesh mesh(world, shape);
    Model model(training.model, training.compute, {}, mesh);
    model.initialize(5);
    const auto optimizer = make_optimizer(training.optimizer, model);
    for (int64_t step = 0; step < training.steps; ++step) {
      const Batch batch = rows_of(made_up_batch(step, training.rows, true), mesh.data_part());
      const StepResult result =
          training_step(model, *optimizer, token_rows(batch), step, 0.02, training.step);
      EXPECT_TRUE(result.finite) << result.fault;
      if (world.rank() != 0) continue;
      out.losses.push_back(result.loss);
      out.norms.push_back(result.grad_norm);
      int64_t dropped = 0;
      std::vector<int64_t> routed;
      for (const RouterStatistics& layer : result.layers) {
        dropped += layer.dropped_tokens;
        routed.insert(routed.end(), layer.chosen.begin(), layer.chosen.end());
        routed.insert(routed.end(), layer.kept.begin(), layer.kept.end());
      }
      out.dropped.push_back(dropped);
      out.routed.push_back(std::move(routed));
    }
    const std::lock_guard lock(mutex);
    for (const auto& parameter : model.parameters()) {
      put_part(*parameter, out.weights[parameter->name()]);
    }
  });
  return out;
}

// Names of the parameters whose bits differ.
std::vector<std::string> differences(const Trained& a, const Trained& b) {
  std::vector<std::string> names;
  for (const auto& [name, bits] : a.weights) {
    if (b.weights.at(name) != bits) names.push_back(name);
  }
  return names;
}

std::vector<MeshShape> data_and_expert_meshes() {
  return {{2, 1, 1}, {4, 1, 1}, {8, 1, 1}, {2, 2, 1}, {4, 4, 1}, {4, 2, 1}, {8, 2, 1}, {8, 4, 1}};
}

class MeshStepTest : public testing::TrainingTest {};

void expect_one_ranks_bits(const Training& training, const std::string& what) {
  const Trained one = train(training, {});
  for (const MeshShape& shape : data_and_expert_meshes()) {
    if (training.model.experts % shape.expert != 0) continue;
    const Trained many = train(training, shape);
    EXPECT_EQ(one.losses, many.losses) << what << ", " << shape.str();
    EXPECT_EQ(one.norms, many.norms) << what << ", " << shape.str();
    EXPECT_EQ(differences(one, many), std::vector<std::string>()) << what << ", " << shape.str();
  }
}

TEST_F(MeshStepTest, GivesOneRanksBitsOnAnyDataAndExpertMesh) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const char* conventions : {"paper", "t5x", "hf"}) {
      Training training;
      training.compute = compute;
      training.step.canonical_ranks = 8;
      training.model.conventions = conventions_preset(conventions);
      training.model.expert_dropout = 0.2;
      training.model.jitter = 0.05;
      expect_one_ranks_bits(training, fmt::format("{} {}", conventions, dtype_name(compute)));
    }
  }
}

TEST_F(MeshStepTest, GivesOneRanksBitsWithOtherRoutersAndAccumulation) {
  for (const char* router : {"top2", "ntlb"}) {
    Training training;
    training.step.canonical_ranks = 8;
    training.step.accumulate = 2;
    training.step.clip_norm = 0.01;
    training.model.router = router;
    expect_one_ranks_bits(training, router);
  }
}

TEST_F(MeshStepTest, GivesOneRanksBitsWithAdamW) {
  Training training;
  training.step.canonical_ranks = 8;
  training.optimizer.kind = OptimizerConfig::Kind::adamw;
  training.model.expert_dropout = 0.2;
  expect_one_ranks_bits(training, "adamw");
}

TEST_F(MeshStepTest, GivesOneRanksBitsWithRecomputation) {
  Training training;
  training.step.canonical_ranks = 8;
  training.model.expert_dropout = 0.2;
  const Trained one = train(training, {});
  training.step.recompute = Recompute::full;
  const Trained many = train(training, {4, 2, 1});
  EXPECT_EQ(one.losses, many.losses);
  EXPECT_EQ(differences(one, many), std::vector<std::string>());
}

TEST_F(MeshStepTest, GivesOneRanksBitsWithoutExperts) {
  Training training;
  training.step.canonical_ranks = 8;
  training.model.experts = 0;
  expect_one_ranks_bits(training, "dense");
}

TEST_F(MeshStepTest, GivesOneRanksBitsWithMoreRanksThanTokensForExperts) {
  Training training;
  training.step.canonical_ranks = 16;
  training.model.experts = 16;
  training.model.capacity_factor = 0.5;
  const Trained one = train(training, {});
  const Trained many = train(training, {16, 16, 1});
  EXPECT_EQ(one.losses, many.losses);
  EXPECT_EQ(one.dropped, many.dropped);
  EXPECT_EQ(differences(one, many), std::vector<std::string>());
}

TEST_F(MeshStepTest, AgreesWithOneRankUpToRoundingOnAnyModelMesh) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    Training training;
    training.compute = compute;
    training.step.canonical_ranks = 4;
    training.model.expert_dropout = 0.2;
    const Trained one = train(training, {});
    for (const MeshShape& shape :
         {MeshShape{1, 1, 2}, MeshShape{2, 1, 2}, MeshShape{4, 4, 2}, MeshShape{2, 2, 2}}) {
      const Trained many = train(training, shape);
      const double tolerance = compute == DType::f32 ? 1e-5 : 2e-3;
      for (size_t i = 0; i < one.losses.size(); ++i) {
        EXPECT_NEAR(many.losses[i], one.losses[i], tolerance * one.losses[i])
            << shape.str() << " " << dtype_name(compute) << ", step " << i;
      }
      // Later steps of bf16 may meet a tie within rounding.
      const size_t steps = compute == DType::f32 ? one.routed.size() : 1;
      for (size_t i = 0; i < steps; ++i) {
        EXPECT_EQ(many.routed[i], one.routed[i]) << shape.str() << " " << dtype_name(compute);
      }
      const Trained again = train(training, shape);
      EXPECT_EQ(many.losses, again.losses);
      EXPECT_EQ(differences(many, again), std::vector<std::string>());
    }
  }
}

TEST_F(MeshStepTest, SkipsAStepOnAllRanksWhenOneIsAtFault) {
  const MeshShape shape{4, 4, 1};
  std::vector<std::string> faults(4);
  run_ranks(4, [&](World& world) {
    const Mesh mesh(world, shape);
    Model model(small_model(), DType::f32, {}, mesh);
    model.initialize(5);
    StepConfig config;
    config.canonical_ranks = 4;
    const Batch batch = rows_of(made_up_batch(0, 8), mesh.data_part());
    const StepResult result =
        compute_gradients(model, token_rows(batch), 0, config,
                          [&](Context& context, const Model& m, const ModelInput& input,
                              const ForwardOptions& options) {
                            ForwardResult forward = m.forward(context, input, options);
                            if (world.rank() == 2) forward.loss = std::nan("");
                            return forward;
                          });
    EXPECT_FALSE(result.finite);
    faults[static_cast<size_t>(world.rank())] = result.fault;
  });
  for (const std::string& fault : faults) EXPECT_EQ(fault, "rank 2: loss is not finite");
}

TEST_F(MeshStepTest, SaysBeforeTheFirstStepWhatDoesNotFit) {
  StepConfig config;
  config.canonical_ranks = 4;
  EXPECT_THAT(message_of(ErrorKind::usage, [&] { config.check_rows(16, 8); }),
              ::testing::HasSubstr("8 data ranks cannot share the run's 4 canonical ranks"));
  EXPECT_THAT(message_of(ErrorKind::usage, [&] { config.check_rows(12, 3); }),
              ::testing::HasSubstr("3 data ranks, expected a power of two; start 2 or 4"));
  EXPECT_THAT(message_of(ErrorKind::usage, [&] { config.check_rows(6, 4); }),
              ::testing::HasSubstr("6 rows cannot be cut"));
}

}  // namespace
}  // namespace sw
