// Optimizers and gradient norms on meshes of threads.
#include <gtest/gtest.h>

#include <cmath>

#include "libswitch/train/gradient_norm.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/optimizer_owners.h"
#include "tests/support/kernel_case.h"
#include "tests/support/mesh_case.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using testing::on_mesh;
using testing::part_of;
using testing::write_made_up_gradients;

class OptimizerOnAMesh : public testing::TrainingTest {};
class GradientNormOnAMesh : public testing::TrainingTest {};
class Owners : public testing::TrainingTest {};

// Four experts of matrices that are factored, and of more than one block of rows and elements.
ModelConfig wide_model(const char* conventions) {
  ModelConfig config = testing::small_model();
  config.d_model = 96;
  config.d_ff = 200;
  config.conventions = conventions_preset(conventions);
  return config;
}

OptimizerConfig factored_config() {
  OptimizerConfig config;
  config.min_factored_size = 16;
  return config;
}

struct Trained {
  std::unique_ptr<Model> model;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<double> norms;
};

Trained train(const ModelConfig& config, const OptimizerConfig& optimizer, DType compute,
              const Mesh& mesh) {
  Trained out;
  out.model = std::make_unique<Model>(config, compute, Device{}, mesh);
  out.model->initialize(1);
  out.optimizer = make_optimizer(optimizer, *out.model);
  for (int64_t step = 0; step < 3; ++step) {
    write_made_up_gradients(*out.model, step);
    out.norms.push_back(gradient_norm(*out.model));
    out.optimizer->apply(0.01, step, 0.5);
  }
  return out;
}

// `size`: of what the weights and states are sums of.
void expect_near(const Tensor& got, const Tensor& want, double relative, double size,
                 const std::string& name) {
  const auto a = got.to_vector(), b = want.to_vector();
  ASSERT_EQ(a.size(), b.size()) << name;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], b[i], relative * (std::abs(b[i]) + size)) << name << " at " << i;
  }
}

struct Case {
  const char* conventions;
  OptimizerConfig config;
  DType compute;
  int64_t experts = 4;
};

std::vector<Case> cases() {
  OptimizerConfig adamw;
  adamw.kind = OptimizerConfig::Kind::adamw;
  adamw.weight_decay = 0.1;
  OptimizerConfig absolute = factored_config();
  absolute.multiply_by_rms = false;
  // The default leaves these small matrices unfactored.
  return {{"paper", factored_config(), DType::f32},
          {"paper", absolute, DType::f32},
          {"t5x", factored_config(), DType::bf16},
          {"paper", {}, DType::bf16},
          {"t5x", {}, DType::f32},
          {"paper", adamw, DType::f32},
          // Experts are the rows of matrices [experts, d_ff], one for each of d_model.
          {"paper", factored_config(), DType::bf16, 100}};
}

void compare_on(const std::vector<MeshShape>& meshes, bool shard, bool bitwise) {
  for (const Case& c : cases()) {
    ModelConfig model = wide_model(c.conventions);
    if (c.experts > 4) {
      model.experts = c.experts;
      model.d_model = 24;
      model.d_ff = 32;
    }
    const Trained one = train(model, c.config, c.compute, single_mesh());
    OptimizerConfig config = c.config;
    config.shard = shard;
    for (const MeshShape& shape : meshes) {
      SCOPED_TRACE(
          fmt::format("{} {} {}", shape.str(), c.conventions, optimizer_name(c.config.kind)));
      on_mesh(shape, [&](const Mesh& mesh) {
        const Trained got = train(model, config, c.compute, mesh);
        const auto compare = [&](const Tensor& part, const Tensor& whole, const Rectangle& box,
                                 const std::string& name) {
          if (bitwise) {
            test::expect_same_bits(part, part_of(whole, box), name);
          } else {
            // Rounding of sums of up to 2^15 f32 terms, taken in other groups.
            const double step = c.config.multiply_by_rms ? 1e-3 : 1e-2;
            expect_near(part, part_of(whole, box), 2e-6, step, name);
          }
        };
        for (size_t p = 0; p < one.model->parameters().size(); ++p) {
          Parameter& whole = *one.model->parameters()[p];
          Parameter& part = *got.model->parameters()[p];
          compare(part.master(), whole.master(), part.rectangle(), part.name());
          if (part.working_copy() && bitwise) {
            compare(part.working_copy(), whole.working_copy(), part.rectangle(), part.name());
          }
        }
        for (size_t i = 0; i < one.optimizer->states().size(); ++i) {
          const OptimizerState& state = got.optimizer->states()[i];
          if (!state.tensor.defined()) continue;
          compare(state.tensor, one.optimizer->states()[i].tensor, state.rectangle, state.path);
        }
        for (size_t i = 0; i < one.norms.size(); ++i) {
          if (bitwise) {
            EXPECT_EQ(got.norms[i], one.norms[i]);
          } else {
            EXPECT_NEAR(got.norms[i] / one.norms[i], 1, 1e-12);
          }
        }
      });
    }
  }
}

TEST_F(OptimizerOnAMesh, GivesTheBitsOfOneRankOnDataAndExpertAxes) {
  compare_on(testing::data_meshes(), false, true);
}

TEST_F(OptimizerOnAMesh, AgreesToRoundingOnAModelAxis) {
  compare_on(testing::model_meshes(), false, false);
}

TEST_F(OptimizerOnAMesh, GivesTheSameBitsWhenItsStateIsSplitOverRanks) {
  compare_on(testing::data_meshes(), true, true);
  compare_on(testing::model_meshes(), true, false);
}

TEST_F(OptimizerOnAMesh, KeepsEveryPartOfItsStateOnceWhenSplit) {
  for (const MeshShape& shape : testing::all_meshes()) {
    SCOPED_TRACE(shape.str());
    on_mesh(shape, [&](const Mesh& mesh) {
      const ModelConfig config = wide_model("paper");
      Model model(config, DType::f32, {}, mesh);
      OptimizerConfig options = factored_config();
      options.shard = true;
      const auto optimizer = make_optimizer(options, model);
      for (const OptimizerState& state : optimizer->states()) {
        // Elements written, over all ranks, make up the whole.
        const int64_t part = shape_of(state.rectangle, state.shape.rank()).elements();
        EXPECT_EQ(mesh.world().all_reduce_value(state.writes ? part : 0, ReduceOp::sum),
                  state.shape.elements())
            << state.path;
        EXPECT_TRUE(state.tensor.defined() || !state.writes) << state.path;
      }
    });
  }
}

TEST_F(OptimizerOnAMesh, RefusesAFactoredExpertDimensionWhoseMatricesDoNotDivide) {
  ModelConfig config = testing::small_model();
  config.d_model = 18;
  config.experts = 40;
  try {
    on_mesh({4, 4, 1}, [&](const Mesh& mesh) {
      Model model(config, DType::f32, {}, mesh);
      make_optimizer(factored_config(), model);
    });
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_NE(std::string(error.what()).find("moe/wi"), std::string::npos) << error.what();
  }
}

TEST_F(Owners, ShareTheElementsEvenly) {
  ModelConfig config = wide_model("paper");
  config.encoder_layers = config.decoder_layers = 8;
  const auto specs = parameter_specs(config);
  const MeshShape mesh{4, 2, 1};
  const auto owners = assign_owners(specs, mesh);
  std::vector<int64_t> load(4);
  for (size_t p = 0; p < specs.size(); ++p) {
    const int64_t width = specs[p].expert() ? 2 : 1;
    ASSERT_LT(owners[p], 4 / width);
    for (int64_t r = owners[p] * width; r < (owners[p] + 1) * width; ++r) {
      load[static_cast<size_t>(r)] += specs[p].elements() / width;
    }
  }
  const auto [least, most] = std::minmax_element(load.begin(), load.end());
  EXPECT_LT(static_cast<double>(*most), 1.1 * static_cast<double>(*least));
}

}  // namespace
}  // namespace sw
