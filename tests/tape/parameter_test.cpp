#include "libswitch/tape/parameter.h"

#include <gtest/gtest.h>

#include "libswitch/base/error.h"
#include "tests/support/kernel_case.h"
#include "tests/support/mesh_case.h"

namespace sw {
namespace {

ParameterSpec spec(Shape shape, std::vector<std::string> axes, Initializer::Kind kind) {
  return {"some/weight", shape, std::move(axes), {kind, 0.5}, false};
}

std::vector<ParameterSpec> specs() {
  using Kind = Initializer::Kind;
  return {spec({6}, {"d_model"}, Kind::constant),
          spec({4, 32}, {"heads", "buckets"}, Kind::uniform),
          spec({6, 8}, {"d_model", "heads_kv"}, Kind::normal),
          spec({8, 6}, {"vocab", "d_model"}, Kind::truncated_normal),
          spec({4, 6, 8}, {"expert", "d_model", "d_ff"}, Kind::truncated_normal),
          spec({4, 8, 6}, {"expert", "d_ff", "d_model"}, Kind::normal),
          spec({6, 4}, {"d_model", "experts"}, Kind::normal)};
}

TEST(ParameterOnAMesh, DrawsThePartThatTheWholeHasThere) {
  for (const DType compute : {DType::f32, DType::bf16, DType::f64}) {
    for (const ParameterSpec& s : specs()) {
      Parameter whole(s, compute, {});
      whole.initialize({}, 3);
      for (const MeshShape& shape : testing::all_meshes()) {
        SCOPED_TRACE(shape.str() + " " + s.shape.str());
        testing::on_mesh(shape, [&](const Mesh& mesh) {
          Parameter parameter(s, compute, {}, mesh);
          parameter.initialize({}, 3);
          const Rectangle& box = parameter.rectangle();
          test::expect_same_bits(parameter.master(), testing::part_of(whole.master(), box),
                                 "master");
          EXPECT_EQ(parameter.gradient().shape(), parameter.master().shape());
          if (!parameter.working_copy()) return;
          test::expect_same_bits(parameter.working_copy(),
                                 testing::part_of(whole.working_copy(), box), "working copy");
        });
      }
    }
  }
}

TEST(ParameterOnAMesh, RefusesADimensionThatDoesNotDivide) {
  try {
    testing::on_mesh({2, 2, 1}, [](const Mesh& mesh) {
      Parameter(spec({3, 4, 4}, {"expert", "d_model", "d_ff"}, {}), DType::f32, {}, mesh);
    });
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_NE(std::string(error.what()).find("some/weight"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace sw
