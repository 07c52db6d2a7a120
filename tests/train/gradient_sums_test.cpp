#include <gtest/gtest.h>

#include <string>

#include "libswitch/base/rng.h"
#include "libswitch/base/sum_tree.h"
#include "libswitch/train/gradient_norm.h"
#include "libswitch/train/gradient_reduction.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

struct Spell {
  void operator()(std::string& left, const std::string& right) const {
    left = "(" + left + "+" + right + ")";
  }
};
using SpelledTree = SumTree<std::string, Spell>;

std::string spelled(int leaves) {
  SpelledTree tree{Spell{}};
  for (int i = 0; i < leaves; ++i) tree.push(std::to_string(i));
  return tree.finish();
}

TEST(SumTree, AddsNeighboursThenPairsOfPairs) {
  EXPECT_EQ(spelled(1), "0");
  EXPECT_EQ(spelled(2), "(0+1)");
  EXPECT_EQ(spelled(4), "((0+1)+(2+3))");
  EXPECT_EQ(spelled(8), "(((0+1)+(2+3))+((4+5)+(6+7)))");
}

TEST(SumTree, AddsWhatIsLeftOverFromTheRight) {
  EXPECT_EQ(spelled(3), "((0+1)+2)");
  EXPECT_EQ(spelled(7), "(((0+1)+(2+3))+((4+5)+6))");
}

TEST(SumTree, NeighboursSummedElsewhereAreASubtree) {
  SpelledTree first{Spell{}}, second{Spell{}}, both{Spell{}};
  for (int i = 0; i < 4; ++i) first.push(std::to_string(i));
  for (int i = 4; i < 8; ++i) second.push(std::to_string(i));
  both.push(first.finish());
  both.push(second.finish());
  EXPECT_EQ(both.finish(), spelled(8));
}

TEST(SumTree, IsEmptyAfterFinishing) {
  SpelledTree tree{Spell{}};
  for (int i = 0; i < 5; ++i) tree.push("x");
  tree.finish();
  for (int i = 0; i < 2; ++i) tree.push(std::to_string(i));
  EXPECT_EQ(tree.finish(), "(0+1)");
}

class GradientSumsTest : public testing::TrainingTest {};

// Gradients of a made-up shard in the slots of a model; the last parameter gets none from odd
// shards.
void write_gradients(Model& model, int64_t shard) {
  for (auto& parameter : model.parameters()) {
    if (parameter == model.parameters().back() && shard % 2 == 1) continue;
    auto [tensor, accum] = parameter->gradient().target();
    ASSERT_EQ(accum, Accum::write);
    const RngKey key = rng_key(static_cast<uint64_t>(shard), RngPurpose::test, parameter->name());
    for (int64_t i = 0; i < tensor.elements(); ++i) {
      tensor.data<float>()[i] = static_cast<float>(random_normal(key, static_cast<uint64_t>(i)));
    }
  }
}

std::vector<std::vector<double>> tree_sums(int64_t shards) {
  Model model(testing::small_model(), DType::f32);
  GradientReduction reduction(model, shards);
  for (int64_t shard = 0; shard < shards; ++shard) {
    write_gradients(model, shard);
    if (shard + 1 < shards) reduction.push();
  }
  reduction.finish();
  std::vector<std::vector<double>> sums;
  for (auto& parameter : model.parameters()) {
    sums.push_back(parameter->gradient().gradient().to_vector());
  }
  return sums;
}

TEST_F(GradientSumsTest, EqualsTheDirectSum) {
  constexpr int64_t kShards = 8;
  const auto sums = tree_sums(kShards);
  Model model(testing::small_model(), DType::f32);
  std::vector<std::vector<double>> expected(sums.size());
  for (int64_t shard = 0; shard < kShards; ++shard) {
    model.clear_gradients();
    write_gradients(model, shard);
    for (size_t p = 0; p < sums.size(); ++p) {
      const GradientSlot& slot = model.parameters()[p]->gradient();
      if (!slot.is_set()) continue;
      const auto values = slot.gradient().to_vector();
      expected[p].resize(values.size());
      for (size_t i = 0; i < values.size(); ++i) expected[p][i] += values[i];
    }
  }
  // Three additions of f32 each: 3 · 2^-24 of the sum of magnitudes (at most about 8 · 4).
  for (size_t p = 0; p < sums.size(); ++p) {
    for (size_t i = 0; i < sums[p].size(); ++i) ASSERT_NEAR(sums[p][i], expected[p][i], 6e-6);
  }
}

TEST_F(GradientSumsTest, OneShardKeepsItsTensor) {
  Model model(testing::small_model(), DType::f32);
  write_gradients(model, 0);
  const void* before = model.parameters()[0]->gradient().gradient().raw();
  GradientReduction(model, 1).finish();
  EXPECT_EQ(model.parameters()[0]->gradient().gradient().raw(), before);
}

TEST_F(GradientSumsTest, NormIsTheNormOfAllGradientsTogether) {
  Model model(testing::small_model(), DType::f32);
  write_gradients(model, 2);
  double sum = 0;
  for (auto& parameter : model.parameters()) {
    for (const double g : parameter->gradient().gradient().to_vector()) sum += g * g;
  }
  EXPECT_NEAR(gradient_norm(model) / std::sqrt(sum), 1.0, 1e-12);
}

}  // namespace
}  // namespace sw
