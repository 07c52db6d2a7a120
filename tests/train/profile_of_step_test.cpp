// What a profile says of a whole training step.
#include <gtest/gtest.h>

#include <vector>

#include "libswitch/base/profile.h"
#include "libswitch/base/timer.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/step.h"

namespace sw {
namespace {

constexpr int64_t kRows = 2, kInputs = 12, kTargets = 6;

Profile profile_of_step(const ModelConfig& config, double* seconds = nullptr) {
  Model model(config, DType::f32, {});
  model.initialize(1);
  const auto optimizer = make_optimizer({}, model);
  std::vector<int32_t> inputs(kRows * kInputs), targets(kRows * kTargets);
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i] = 2 + static_cast<int32_t>(i % 50);
  for (size_t i = 0; i < targets.size(); ++i) targets[i] = 2 + static_cast<int32_t>(i % 40);
  TokenRows batch;
  batch.rows = kRows, batch.input_length = kInputs, batch.target_length = kTargets;
  batch.inputs = inputs, batch.targets = targets;
  Profile profile;
  const ProfileRecording recording(profile);
  const Timer timer;
  training_step(model, *optimizer, batch, 0, 1e-3, StepConfig());
  if (seconds != nullptr) *seconds = timer.seconds();
  return profile;
}

ModelConfig small_model() {
  ModelConfig config;
  config.vocab_size = 256;
  config.d_model = 64, config.heads = 2, config.d_kv = 16, config.d_ff = 128;
  config.output_z_loss = 0;
  return config;
}

double flops(const Profile& profile) {
  double sum = 0;
  for (const ProfileEntry& entry : profile.entries()) sum += entry.flops;
  return sum;
}

TEST(ProfileOfStep, OperationsOfADenseModelAddUpToThreeForwardPasses) {
  for (const Activation activation : {Activation::relu, Activation::geglu}) {
    ModelConfig config = small_model();
    config.activation = activation;
    const double expected = 3 * kRows * forward_flops(config, kInputs, kTargets);
    EXPECT_NEAR(flops(profile_of_step(config)), expected, 1e-9 * expected);
  }
}

TEST(ProfileOfStep, DroppedTokensOfASparseModelAreNotCounted) {
  ModelConfig config = small_model();
  config.experts = 4;
  config.jitter = 0;
  const double whole = 3 * kRows * forward_flops(config, kInputs, kTargets);
  config.capacity_factor = 100;
  EXPECT_NEAR(flops(profile_of_step(config)), whole, 1e-9 * whole);
  config.capacity_factor = 0.25;
  config.min_capacity = 1;
  EXPECT_LT(flops(profile_of_step(config)), whole);
}

TEST(ProfileOfStep, EveryPartAppearsAndAllTogetherFitIntoTheStep) {
  ModelConfig config = small_model();
  config.experts = 4;
  config.dropout = config.expert_dropout = 0.1;
  double seconds = 0;
  const Profile profile = profile_of_step(config, &seconds);
  EXPECT_GT(profile.seconds(), 0);
  EXPECT_LE(profile.seconds(), seconds);
  const auto entries = profile.entries();
  for (const char* name :
       {"attention.q forward", "attention.o d_weight", "attention.cross core backward",
        "attention.decoder core forward", "ffn.wi d_input", "ffn relu backward",
        "experts.wo d_weight", "router forward", "route backward", "dispatch backward",
        "combine backward", "expert dropout backward", "norm backward", "embedding backward",
        "cross-entropy", "gradient norm", "optimizer", "batch preparation"}) {
    bool found = false;
    for (const ProfileEntry& entry : entries) found |= entry.name == name && entry.calls > 0;
    EXPECT_TRUE(found) << name;
  }
}

}  // namespace
}  // namespace sw
