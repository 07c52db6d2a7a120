// What a step sends, counted by the library, against the formulae of Fedus et al. 2022, section 5:
// dense gradients are reduced over the data ranks, tokens cross four times per sparse layer
// (dispatch and combine, forward and backward), expert gradients stay but for replicas.
#include <gtest/gtest.h>

#include <numeric>
#include <ostream>

#include "libswitch/comm/local/threads.h"
#include "libswitch/train/gradient_reduction.h"
#include "libswitch/train/objective.h"
#include "tests/support/training_case.h"

namespace sw {

void PrintTo(const CommVolume& volume, std::ostream* out) {
  *out << volume.messages << " messages, " << volume.bytes << " bytes";
}

namespace {

using testing::made_up_batch;
using testing::rows_of;
using testing::small_model;

CommVolume since(const Group& group, const CommVolume& before) {
  return {group.volume().messages - before.messages, group.volume().bytes - before.bytes};
}

// Rows of a rank's plan for the experts of other ranks.
int64_t remote_rows(const RoutingPlan& plan, MeshPart experts) {
  int64_t rows = 0;
  for (int64_t e = 0; e < plan.experts; ++e) {
    const bool own = e / experts.count(plan.experts) == experts.index;
    rows += own ? 0 : plan.kept[static_cast<size_t>(e)];
  }
  return rows;
}

struct ForwardAndBackward {
  ForwardResult result;
  CommVolume expert, data, model;
};

// Other ranks that get, or send, any row: nothing is sent for none.
int64_t partners(const std::vector<int64_t>& rows, int64_t rank) {
  int64_t count = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    count += static_cast<int64_t>(r) != rank && rows[r] > 0 ? 1 : 0;
  }
  return count;
}

ForwardAndBackward run(const Mesh& mesh, Model& model) {
  const Batch batch = rows_of(made_up_batch(0, 8), mesh.data_part());
  const TokenRows rows = token_rows(batch);
  const RealTokens own = count_real_tokens(rows);
  const int64_t ranks = mesh.shape().data;
  const RealTokens whole{own.inputs * ranks, own.targets * ranks};
  Tape tape;
  Context context;
  context.training = true;
  context.tape = &tape;
  const CommVolume expert = mesh.expert().volume(), data = mesh.data().volume(),
                   across = mesh.model().volume();
  ForwardAndBackward out;
  out.result = model.forward(
      context,
      make_model_input(rows, model.config().conventions, ranks, mesh.data().rank(), &whole), {});
  tape.backward();
  out.expert = since(mesh.expert(), expert);
  out.data = since(mesh.data(), data);
  out.model = since(mesh.model(), across);
  return out;
}

int64_t gradient_bytes(const Model& model, bool of_experts) {
  int64_t bytes = 0;
  for (const auto& parameter : model.parameters()) {
    if ((parameter->placement().expert_dimension >= 0) == of_experts) {
      bytes += parameter->gradient().gradient().bytes();
    }
  }
  return bytes;
}

class MeshVolumeTest : public testing::TrainingTest {};

TEST_F(MeshVolumeTest, TokensCrossFourTimesPerSparseLayerAndNothingElseMoves) {
  constexpr int64_t kRanks = 4;
  run_ranks(kRanks, [&](World& world) {
    const Mesh mesh(world, {kRanks, kRanks, 1});
    Model model(small_model(), DType::bf16, {}, mesh);
    model.initialize(1);
    const ForwardAndBackward done = run(mesh, model);

    const int64_t row_bytes = model.config().d_model * element_bytes(DType::bf16);
    const int64_t experts = model.config().experts;
    CommVolume expected;
    for (const auto& layer : done.result.layers) {
      const RoutingPlan& plan = layer.routing->plan;
      const ExpertExchange& exchange = layer.routing->exchange;
      const int64_t leaving = remote_rows(plan, mesh.expert_part());
      const int64_t arriving =
          exchange.rows - exchange.receive_rows[static_cast<size_t>(mesh.expert().rank())];
      // Out and back, forward; out and back, backward; and a count per expert.
      expected.bytes += 2 * (leaving + arriving) * row_bytes;
      expected.bytes += (kRanks - 1) * experts / kRanks * element_bytes(DType::i32);
      const int64_t rank = mesh.expert().rank();
      expected.messages += 2 * partners(exchange.send_rows, rank) +
                           2 * partners(exchange.receive_rows, rank) + kRanks - 1;
    }
    EXPECT_EQ(done.expert, expected) << "rank " << world.rank();
    EXPECT_EQ(done.data, CommVolume()) << "dense layers send nothing within the pass";
    EXPECT_EQ(done.model, CommVolume());
  });
}

TEST_F(MeshVolumeTest, RowsNeverExceedTheCapacityOfThePaper) {
  constexpr int64_t kRanks = 4;
  ModelConfig config = small_model();
  config.capacity_factor = 1.0;
  run_ranks(kRanks, [&](World& world) {
    const Mesh mesh(world, {kRanks, kRanks, 1});
    Model model(config, DType::f32, {}, mesh);
    model.initialize(1);
    const ForwardAndBackward done = run(mesh, model);
    for (const auto& layer : done.result.layers) {
      const RoutingPlan& plan = layer.routing->plan;
      const int64_t sent = std::accumulate(layer.routing->exchange.send_rows.begin(),
                                           layer.routing->exchange.send_rows.end(), int64_t{0});
      EXPECT_LE(sent, plan.experts * plan.capacity * plan.groups);
    }
  });
}

TEST_F(MeshVolumeTest, GradientsAreReducedOnceOverTheRanksThatShareThem) {
  const MeshShape shape{4, 2, 1};
  run_ranks(shape.ranks(), [&](World& world) {
    const Mesh mesh(world, shape);
    Model model(small_model(), DType::f32, {}, mesh);
    model.initialize(1);
    run(mesh, model);
    const CommVolume data = mesh.data().volume(), replica = mesh.replica().volume(),
                     expert = mesh.expert().volume();
    GradientReduction(model, 1).finish();
    // Recursive halving and doubling of p ranks: 2 (p-1)/p of the vector in 2 log2 p messages.
    EXPECT_EQ(since(mesh.data(), data).bytes, 2 * 3 * gradient_bytes(model, false) / 4);
    EXPECT_EQ(since(mesh.replica(), replica).bytes, 2 * 1 * gradient_bytes(model, true) / 2);
    EXPECT_EQ(since(mesh.data(), data).messages, 4);
    EXPECT_EQ(since(mesh.replica(), replica).messages, 2);
    EXPECT_EQ(since(mesh.expert(), expert), CommVolume());
  });
}

TEST_F(MeshVolumeTest, ModelRanksSendEachRowOnceBetweenThem) {
  const MeshShape shape{2, 2, 2};
  run_ranks(shape.ranks(), [&](World& world) {
    const Mesh mesh(world, shape);
    Model model(small_model(), DType::f32, {}, mesh);
    model.initialize(1);
    const ForwardAndBackward done = run(mesh, model);
    const int64_t share_bytes = model.config().d_model / 2 * element_bytes(DType::f32);
    CommVolume expected;
    for (const auto& layer : done.result.layers) {
      const ExpertExchange& exchange = layer.routing->exchange;
      const int64_t leaving = remote_rows(layer.routing->plan, mesh.expert_part());
      const int64_t arriving =
          exchange.rows - exchange.receive_rows[static_cast<size_t>(mesh.expert().rank())];
      expected.bytes += 2 * (leaving + arriving) * share_bytes;
      expected.bytes += model.config().experts / 2 * element_bytes(DType::i32);
      const int64_t rank = mesh.expert().rank();
      expected.messages +=
          2 * partners(exchange.send_rows, rank) + 2 * partners(exchange.receive_rows, rank) + 1;
    }
    EXPECT_EQ(done.expert, expected);
  });
}

}  // namespace
}  // namespace sw
