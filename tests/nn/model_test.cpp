// The whole model against finite differences, and the bits it must keep: threads, recomputation,
// shards.
#include "libswitch/nn/model.h"

#include <gtest/gtest.h>

#include "libswitch/base/parallel.h"
#include "libswitch/tape/gradcheck.h"
#include "libswitch/train/step.h"

namespace sw {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 37, config.d_model = 12, config.d_kv = 5, config.heads = 2, config.d_ff = 18;
  config.encoder_layers = config.decoder_layers = 2;
  config.experts = 3;
  config.min_capacity = 1;
  config.router_z_loss = 1e-2, config.aux_loss = 5e-2;
  config.label_smoothing = 0.1;
  config.init_scale = 1;
  return config;
}

// Two padded rows, as data gives them.
struct Rows {
  Rows() {
    rows.rows = 4, rows.input_length = 9, rows.target_length = 6;
    for (int64_t i = 0; i < 36; ++i)
      inputs.push_back(static_cast<int32_t>(2 + (i * 7 + i / 5) % 35));
    for (int64_t i = 0; i < 24; ++i)
      targets.push_back(static_cast<int32_t>(2 + (i * 11 + i / 3) % 35));
    inputs[34] = inputs[35] = targets[22] = targets[23] = targets[11] = 0;
    rows.inputs = inputs, rows.targets = targets;
  }
  std::vector<int32_t> inputs, targets;
  TokenRows rows;
};

double loss_of(const Model& model, const Rows& rows) {
  Context context;
  context.training = true;
  context.seed = 3;
  return model.forward(context, make_model_input(rows.rows, model.config().conventions)).loss;
}

void check_gradients(const ModelConfig& config) {
  set_threads(1);  // the sizes are too small for more
  Model model(config, DType::f64);
  model.initialize(1);
  const Rows rows;
  Tape tape;
  Context context;
  context.tape = &tape;
  context.training = true;
  context.seed = 3;
  model.forward(context, make_model_input(rows.rows, config.conventions));
  tape.backward();
  for (auto& parameter : model.parameters()) {
    ASSERT_TRUE(parameter->gradient().is_set()) << parameter->name();
    const Tensor analytic = parameter->gradient().gradient().clone();
    const GradientError error = check_gradient([&] { return loss_of(model, rows); },
                                               parameter->master(), analytic, 5, 1e-6);
    // Central differences with step 1e-6 of a loss near 4: rounding alone is about 1e-9 / gradient.
    EXPECT_LT(error.worst, 2e-5) << parameter->name() << ": " << error.str();
  }
  set_threads(0);
}

TEST(ModelGradient, DenseReluAgreesWithFiniteDifferences) {
  ModelConfig config = small_config();
  config.experts = 0;
  check_gradients(config);
}

TEST(ModelGradient, DenseGegluUntiedWithDropoutAgreesWithFiniteDifferences) {
  ModelConfig config = small_config();
  config.experts = 0;
  config.activation = Activation::geglu;
  config.tied_embeddings = false;
  config.dropout = 0.2;
  check_gradients(config);
}

TEST(ModelGradient, SwitchAgreesWithFiniteDifferences) {
  for (const char* conventions : {"paper", "t5x", "hf"}) {
    SCOPED_TRACE(conventions);
    ModelConfig config = small_config();
    config.conventions = conventions_preset(conventions);
    config.expert_capacity = 4;
    config.jitter = conventions == std::string("hf") ? 0 : 0.05;
    config.dropout = 0.1;
    config.expert_dropout = 0.3;
    check_gradients(config);
  }
}

TEST(ModelGradient, TopTwoAndNoTokenLeftBehindAgreeWithFiniteDifferences) {
  for (const char* router : {"top2", "ntlb"}) {
    SCOPED_TRACE(router);
    ModelConfig config = small_config();
    config.router = router;
    config.second_policy = "all";
    config.ntlb_k = 2;
    config.expert_dropout = 0.3;
    check_gradients(config);
  }
}

// All gradients of one pass, for comparisons of bits.
std::vector<std::vector<double>> gradients(const ModelConfig& config, DType dtype,
                                           Recompute recompute, double* loss) {
  Model model(config, dtype);
  model.initialize(5);
  const Rows rows;
  Tape tape;
  Context context;
  context.tape = &tape;
  context.training = true;
  const ModelInput input = make_model_input(rows.rows, config.conventions);
  *loss = model.forward(context, input, {recompute}).loss;
  tape.backward();
  std::vector<std::vector<double>> all;
  for (const auto& parameter : model.parameters()) {
    all.push_back(parameter->gradient().gradient().to_vector());
  }
  return all;
}

ModelConfig noisy_config() {
  ModelConfig config = small_config();
  config.d_model = 64, config.d_ff = 96, config.d_kv = 16, config.heads = 4;
  config.dropout = 0.1, config.expert_dropout = 0.4, config.jitter = 0.01;
  return config;
}

TEST(ModelBits, RecomputationChangesNothing) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    double expected_loss = 0;
    const auto expected = gradients(noisy_config(), dtype, Recompute::none, &expected_loss);
    for (const Recompute recompute : {Recompute::layer, Recompute::full}) {
      double loss = 0;
      EXPECT_EQ(gradients(noisy_config(), dtype, recompute, &loss), expected);
      EXPECT_EQ(loss, expected_loss);
    }
  }
}

TEST(ModelBits, DoNotDependOnTheNumberOfThreads) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    double expected_loss = 0;
    set_threads(1);
    const auto expected = gradients(noisy_config(), dtype, Recompute::none, &expected_loss);
    for (const int threads : {2, 3}) {
      set_threads(threads);
      double loss = 0;
      EXPECT_EQ(gradients(noisy_config(), dtype, Recompute::none, &loss), expected);
      EXPECT_EQ(loss, expected_loss);
    }
    set_threads(0);
  }
}

TEST(ModelBits, Bf16StaysCloseToFloat32) {
  double f32 = 0, bf16 = 0;
  gradients(noisy_config(), DType::f32, Recompute::none, &f32);
  gradients(noisy_config(), DType::bf16, Recompute::none, &bf16);
  EXPECT_NEAR(bf16, f32, 2e-2 * f32);
}

TEST(ModelSites, RandomPlacesOfDifferentSublayersDiffer) {
  EXPECT_NE(site(0, Site::router), site(1, Site::attention_weights));
  EXPECT_LT(static_cast<uint64_t>(Site::final), 16u);
}

}  // namespace
}  // namespace sw
