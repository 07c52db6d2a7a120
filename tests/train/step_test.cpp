#include "libswitch/train/step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "libswitch/base/parallel.h"
#include "libswitch/train/evaluation.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using testing::made_up_batch;
using testing::message_of;
using testing::small_model;
using testing::state_checksum;

struct Trained {
  std::string checksum;
  std::vector<double> losses;
  StepResult last;
};

Trained train(const StepConfig& config, const ModelConfig& model_config = small_model(),
              DType compute = DType::f32, int64_t steps = 4) {
  Model model(model_config, compute);
  model.initialize(5);
  const auto optimizer = make_optimizer({}, model);
  Trained out;
  for (int64_t step = 0; step < steps; ++step) {
    const Batch batch = made_up_batch(step, 8, true);
    out.last = training_step(model, *optimizer, token_rows(batch), step, 0.02, config);
    EXPECT_TRUE(out.last.finite) << out.last.fault;
    out.losses.push_back(out.last.loss);
  }
  out.checksum = state_checksum(model, *optimizer);
  return out;
}

class StepTest : public testing::TrainingTest {};

TEST_F(StepTest, GivesTheSameBitsForAnyNumberOfThreads) {
  StepConfig config;
  config.canonical_ranks = 2;
  for (const DType compute : {DType::f32, DType::bf16}) {
    set_threads(1);
    const Trained one = train(config, small_model(), compute, 3);
    for (const int threads : {2, 3}) {
      set_threads(threads);
      const Trained more = train(config, small_model(), compute, 3);
      EXPECT_EQ(one.losses, more.losses) << threads << " threads, " << dtype_name(compute);
      EXPECT_EQ(one.checksum, more.checksum) << threads << " threads, " << dtype_name(compute);
    }
  }
}

TEST_F(StepTest, GivesTheSameBitsForAnyRecomputation) {
  ModelConfig model = small_model();
  model.expert_dropout = 0.2;
  StepConfig config;
  const Trained none = train(config, model);
  for (const Recompute recompute : {Recompute::layer, Recompute::full}) {
    config.recompute = recompute;
    const Trained again = train(config, model);
    EXPECT_EQ(none.losses, again.losses);
    EXPECT_EQ(none.checksum, again.checksum);
  }
}

TEST_F(StepTest, ShardsOfADenseModelAddUpToTheWholeBatch) {
  ModelConfig model = small_model();
  model.experts = 0;
  StepConfig config;
  const Trained whole = train(config, model, DType::f32, 1);
  for (const auto& [ranks, accumulate] : {std::pair{4, 1}, std::pair{1, 4}, std::pair{2, 2}}) {
    config.canonical_ranks = ranks;
    config.accumulate = accumulate;
    const Trained parts = train(config, model, DType::f32, 1);
    EXPECT_NEAR(parts.last.loss / whole.last.loss, 1, 1e-6);
    EXPECT_NEAR(parts.last.grad_norm / whole.last.grad_norm, 1, 1e-5);
    EXPECT_EQ(parts.last.targets, whole.last.targets);
    EXPECT_EQ(parts.last.tokens, whole.last.tokens);
  }
}

TEST_F(StepTest, StatisticsOfShardsAddUp) {
  StepConfig config;
  const Trained whole = train(config, small_model(), DType::f32, 1);
  config.canonical_ranks = 4;
  const Trained parts = train(config, small_model(), DType::f32, 1);
  ASSERT_EQ(parts.last.layers.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(parts.last.layers[i].tokens, whole.last.layers[i].tokens);
    EXPECT_NEAR(parts.last.layers[i].loss_weight, 1.0, 1e-12);
  }
}

TEST_F(StepTest, ClipsByTheGlobalNorm) {
  StepConfig config;
  const StepResult free = train(config, small_model(), DType::f32, 1).last;
  EXPECT_EQ(free.gradient_scale, 1);
  config.clip_norm = free.grad_norm / 4;
  const StepResult clipped = train(config, small_model(), DType::f32, 1).last;
  EXPECT_EQ(clipped.grad_norm, free.grad_norm);
  EXPECT_NEAR(clipped.gradient_scale, 0.25, 1e-12);
}

TEST_F(StepTest, AStepThatIsNotFiniteUpdatesNothing) {
  Model model(small_model(), DType::f32);
  model.initialize(5);
  const auto optimizer = make_optimizer({}, model);
  model.find("encoder/block_000/attn/q")->master().data<float>()[0] =
      std::numeric_limits<float>::quiet_NaN();
  const Batch batch = made_up_batch(0);
  const std::string before = state_checksum(model, *optimizer);
  const StepResult result = training_step(model, *optimizer, token_rows(batch), 0, 0.01, {});
  EXPECT_FALSE(result.finite);
  EXPECT_FALSE(result.fault.empty());
  EXPECT_EQ(state_checksum(model, *optimizer), before);
}

TEST_F(StepTest, PollsBetweenMicroBatchesAndLeavesNothingBehindWhenInterrupted) {
  Model model(small_model(), DType::f32);
  model.initialize(5);
  const auto optimizer = make_optimizer({}, model);
  StepConfig config;
  config.canonical_ranks = 2;
  config.accumulate = 2;
  const Batch batch = made_up_batch(0);
  int polls = 0;
  struct Stop {};
  const auto poll = [&] {
    if (++polls == 3) throw Stop{};
  };
  EXPECT_THROW(training_step(model, *optimizer, token_rows(batch), 0, 0.02, config, {}, poll),
               Stop);
  training_step(model, *optimizer, token_rows(batch), 0, 0.02, config);
  Model other(small_model(), DType::f32);
  other.initialize(5);
  const auto fresh = make_optimizer({}, other);
  training_step(other, *fresh, token_rows(batch), 0, 0.02, config);
  EXPECT_EQ(state_checksum(model, *optimizer), state_checksum(other, *fresh));
}

TEST_F(StepTest, RefusesRowsThatDoNotDivide) {
  StepConfig config;
  config.canonical_ranks = 4;
  EXPECT_NE(message_of(ErrorKind::usage, [&] { config.check_rows(6); }).find("multiple of 4"),
            std::string::npos);
  config.canonical_ranks = 3;
  EXPECT_NE(message_of(ErrorKind::usage, [&] { config.check_rows(6); }).find("power of two"),
            std::string::npos);
}

TEST_F(StepTest, EvaluationOfPaddedRowsCountsRealTargetsOnly) {
  Model model(small_model(), DType::f32);
  model.initialize(5);
  const Batch batch = made_up_batch(0, 8, true);
  const StepResult result = evaluate_batch(model, token_rows(batch));
  const auto real =
      std::count_if(batch.targets.begin(), batch.targets.end(), [](int32_t id) { return id != 0; });
  EXPECT_EQ(result.targets, real);
  EXPECT_LT(result.neg_log_perplexity(), 0);
}

}  // namespace
}  // namespace sw
