#include "libswitch/comm/mesh.h"

#include <gtest/gtest.h>

#include "libswitch/comm/local/threads.h"

namespace sw {
namespace {

std::string refusal(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    return error.what();
  }
  return "accepted";
}

TEST(MeshShape, IsReadAndWritten) {
  EXPECT_EQ(parse_mesh_shape("data=8,expert=4,model=2"), (MeshShape{8, 4, 2}));
  EXPECT_EQ(parse_mesh_shape("model=2"), (MeshShape{0, 0, 2}));
  EXPECT_EQ(parse_mesh_shape(""), (MeshShape{0, 0, 0}));
  EXPECT_EQ((MeshShape{8, 4, 2}).str(), "data=8,expert=4,model=2");
  EXPECT_EQ((MeshShape{8, 4, 2}).ranks(), 16);
  EXPECT_EQ((MeshShape{8, 4, 2}).replicas(), 2);
}

TEST(MeshShape, RefusesWhatItCannotRead) {
  EXPECT_EQ(refusal([] { parse_mesh_shape("date=2"); }),
            "mesh 'date=2': no axis 'date', expected data, expert or model; did you mean 'data'?");
  for (const char* text : {"data", "data=", "data=x", "data=0", "data=-2", "data=2,data=2",
                           "data=2x", "data=99999999999999999999"}) {
    EXPECT_NE(refusal([&] { parse_mesh_shape(text); }), "accepted") << text;
  }
}

TEST(MeshShape, FillsInWhatIsLeftOut) {
  const MeshShape free{0, 0, 0};
  EXPECT_EQ(resolve_mesh_shape(free, 1, 8), (MeshShape{1, 1, 1}));
  EXPECT_EQ(resolve_mesh_shape(free, 8, 4), (MeshShape{8, 4, 1}));
  EXPECT_EQ(resolve_mesh_shape(free, 8, 0), (MeshShape{8, 1, 1}));
  EXPECT_EQ(resolve_mesh_shape(free, 6, 8), (MeshShape{6, 2, 1}));
  EXPECT_EQ(resolve_mesh_shape({0, 0, 2}, 8, 128), (MeshShape{4, 4, 2}));
  EXPECT_EQ(resolve_mesh_shape({2, 0, 0}, 8, 8), (MeshShape{2, 2, 4}));
  EXPECT_EQ(resolve_mesh_shape({0, 2, 0}, 8, 8), (MeshShape{8, 2, 1}));
}

TEST(MeshShape, RefusesWhatDoesNotFit) {
  EXPECT_NE(refusal([] { resolve_mesh_shape({3, 0, 0}, 8, 8); }), "accepted");
  EXPECT_NE(refusal([] { resolve_mesh_shape({0, 0, 3}, 8, 8); }), "accepted");
  EXPECT_NE(refusal([] { resolve_mesh_shape({4, 1, 1}, 8, 8); }), "accepted");
  EXPECT_NE(refusal([] { resolve_mesh_shape({8, 3, 1}, 8, 9); }), "accepted");
  EXPECT_NE(refusal([] { resolve_mesh_shape({8, 4, 1}, 8, 6); }), "accepted");
  EXPECT_NE(refusal([] { resolve_mesh_shape({8, 4, 1}, 8, 0); }), "accepted");
  EXPECT_NE(refusal([] { run_ranks(2, [](World& world) {
                           Mesh(world, {4, 1, 1});
                         }); }),
            "accepted");
}

TEST(Mesh, LaysRanksOutByReplicaExpertAndModel) {
  run_ranks(8, [](World& world) {
    // rank = (replica · 2 + expert) · 2 + model
    const Mesh mesh(world, {4, 2, 2});
    const int64_t r = world.rank();
    EXPECT_EQ(mesh.data_part(), (MeshPart{r / 2, 4}));
    EXPECT_EQ(mesh.model_part(), (MeshPart{r % 2, 2}));
    EXPECT_EQ(mesh.expert_part(), (MeshPart{r / 2 % 2, 2}));
    EXPECT_EQ(mesh.replica_part(), (MeshPart{r / 4, 2}));
    using Ranks = std::vector<int64_t>;
    EXPECT_EQ(mesh.data().world_ranks(), r % 2 == 0 ? (Ranks{0, 2, 4, 6}) : (Ranks{1, 3, 5, 7}));
    EXPECT_EQ(mesh.model().world_ranks(), (Ranks{r / 2 * 2, r / 2 * 2 + 1}));
    EXPECT_EQ(mesh.expert().world_ranks(), (Ranks{r / 4 * 4 + r % 2, r / 4 * 4 + r % 2 + 2}));
    EXPECT_EQ(mesh.replica().world_ranks(), (Ranks{r % 4, r % 4 + 4}));
    for (const Group* group : {&mesh.data(), &mesh.model(), &mesh.expert(), &mesh.replica()}) {
      EXPECT_EQ(group->world_ranks()[static_cast<size_t>(group->rank())], r) << group->name();
    }
    EXPECT_EQ(mesh.data().name(), "data");
    EXPECT_EQ(&mesh.world(), &world.group());
    // All groups work, each by itself.
    EXPECT_EQ(mesh.data().all_reduce_value(r, ReduceOp::sum), r % 2 == 0 ? 12 : 16);
    EXPECT_EQ(mesh.model().all_reduce_value(r, ReduceOp::max), r / 2 * 2 + 1);
    EXPECT_EQ(mesh.expert().all_reduce_value(r, ReduceOp::min), r / 4 * 4 + r % 2);
    EXPECT_EQ(mesh.replica().all_reduce_value(r, ReduceOp::sum), r % 4 * 2 + 4);
  });
}

TEST(Mesh, OfOneRankNeedsNoWorld) {
  const Mesh& mesh = single_mesh();
  EXPECT_EQ(mesh.shape(), (MeshShape{1, 1, 1}));
  EXPECT_EQ(mesh.data().size(), 1);
  EXPECT_EQ(mesh.model_part().count(12), 12);
}

TEST(MeshPart, IsARangeOfADimension) {
  EXPECT_EQ((MeshPart{2, 4}).begin(12), 6);
  EXPECT_EQ((MeshPart{2, 4}).count(12), 3);
}

}  // namespace
}  // namespace sw
