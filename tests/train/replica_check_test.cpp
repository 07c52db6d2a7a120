#include "libswitch/train/replica_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libswitch/comm/local/threads.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using ::testing::Not;
using testing::small_model;

class ReplicaCheckTest : public testing::TrainingTest {};

void flip_bit(Model& model, const std::string& name) {
  Parameter* parameter = model.find(name);
  ASSERT_NE(parameter, nullptr) << name;
  float& value = parameter->master().data<float>()[3];
  value = -value;
}

// The message of every rank of a mesh in which `rank` alone flips a bit of `name`.
std::vector<std::string> messages(const MeshShape& shape, int64_t rank, const std::string& name) {
  std::vector<std::string> out(static_cast<size_t>(shape.ranks()));
  run_ranks(shape.ranks(), [&](World& world) {
    const Mesh mesh(world, shape);
    Model model(small_model(), DType::f32, {}, mesh);
    model.initialize(5);
    const std::string host = "node" + std::to_string(world.rank());
    check_replicas(model, 6, host);  // equal as yet
    if (world.rank() == rank) flip_bit(model, name);
    out[static_cast<size_t>(world.rank())] =
        message_of(ErrorKind::replicas, [&] { check_replicas(model, 7, host); });
  });
  return out;
}

TEST_F(ReplicaCheckTest, NamesTheOddRankOnAllRanks) {
  for (const std::string& text : messages({4, 1, 1}, 2, "encoder/block_000/attn/q")) {
    EXPECT_THAT(text, AllOf(HasSubstr("replicas disagree after step 7"),
                            HasSubstr("encoder/block_000/attn/q of rank 2 (node2) differs from "
                                      "that of 3 other ranks"),
                            Not(HasSubstr("node1"))));
  }
}

TEST_F(ReplicaCheckTest, TwoRanksHaveNoMajority) {
  for (const std::string& text : messages({2, 1, 1}, 1, "shared/embedding")) {
    EXPECT_THAT(text, HasSubstr("shared/embedding differs between rank 0 (node0), rank 1 (node1), "
                                "without a majority"));
  }
}

TEST_F(ReplicaCheckTest, ExpertsAreComparedWithTheirReplicasOnly) {
  // Ranks 0, 2, 4 and 6 hold the same two experts.
  for (const std::string& text : messages({8, 2, 1}, 4, "encoder/block_001/moe/wi")) {
    EXPECT_THAT(text, HasSubstr("encoder/block_001/moe/wi of rank 4 (node4) differs from that of 3 "
                                "other ranks"));
  }
}

TEST_F(ReplicaCheckTest, OneRankHasNothingToCompare) {
  Model model(small_model(), DType::f32);
  model.initialize(5);
  check_replicas(model, 1, "node0");
}

}  // namespace
}  // namespace sw
