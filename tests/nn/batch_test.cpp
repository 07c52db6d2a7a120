#include "libswitch/nn/batch.h"

#include <gtest/gtest.h>

#include "libswitch/base/error.h"

namespace sw {
namespace {

std::vector<int32_t> ints(const Tensor& tensor) {
  const int32_t* x = tensor.data<int32_t>();
  return {x, x + tensor.elements()};
}

const std::vector<int32_t> kInputs = {5, 6, 1, 0, 7, 8, 9, 1};
const std::vector<int32_t> kTargets = {4, 3, 1, 9, 1, 0};

TokenRows rows() {
  TokenRows r;
  r.rows = 2, r.input_length = 4, r.target_length = 3;
  r.inputs = kInputs, r.targets = kTargets;
  return r;
}

TEST(ModelInput, TargetsAreShiftedAndPaddingIsNoTarget) {
  const ModelInput in = make_model_input(rows(), conventions_preset("paper"));
  EXPECT_EQ(ints(in.decoder_inputs), (std::vector<int32_t>{0, 4, 3, 0, 9, 1}));
  EXPECT_EQ(ints(in.targets), (std::vector<int32_t>{4, 3, 1, 9, 1, -1}));
  EXPECT_EQ(in.real_inputs, 7);
  EXPECT_EQ(in.real_targets, 5);
  EXPECT_EQ(in.loss_denominator, 6);  // positions, padding included
  EXPECT_EQ(ints(in.encoder_key_segments), (std::vector<int32_t>{1, 1, 1, 0, 1, 1, 1, 1}));
  EXPECT_TRUE(in.decoder_segments.defined());
}

TEST(ModelInput, HuggingFaceMasksKeysOnlyAndDividesByRealTargets) {
  const ModelInput in = make_model_input(rows(), conventions_preset("hf"));
  EXPECT_EQ(in.loss_denominator, 5);
  EXPECT_FALSE(in.decoder_segments.defined());
  EXPECT_EQ(ints(in.encoder_query_segments), std::vector<int32_t>(8, 1));
  EXPECT_EQ(ints(in.cross_key_segments), (std::vector<int32_t>{1, 1, 1, 0, 1, 1, 1, 1}));
}

TEST(ModelInput, NoMaskIsMadeWithoutPadding) {
  TokenRows r = rows();
  const std::vector<int32_t> inputs(8, 5), targets(6, 5);
  r.inputs = inputs, r.targets = targets;
  const ModelInput in = make_model_input(r, conventions_preset("paper"));
  EXPECT_FALSE(in.input_nonpadding.defined());
  EXPECT_FALSE(in.encoder_key_segments.defined());
  EXPECT_FALSE(in.cross_key_segments.defined());
}

TEST(ModelInput, PackedTargetsStartAnewAtEverySegment) {
  TokenRows r = rows();
  const std::vector<int32_t> input_segments = {1, 1, 2, 0, 1, 1, 1, 1};
  const std::vector<int32_t> target_segments = {1, 2, 2, 1, 1, 0};
  r.input_segments = input_segments, r.target_segments = target_segments;
  const ModelInput in = make_model_input(r, conventions_preset("paper"));
  EXPECT_EQ(ints(in.decoder_inputs), (std::vector<int32_t>{0, 0, 3, 0, 9, 0}));
}

TEST(ModelInput, ShardsShareTheDenominatorOfTheWholeBatch) {
  const RealTokens whole = {20, 13};
  const ModelInput paper = make_model_input(rows(), conventions_preset("paper"), 4, 2, &whole);
  EXPECT_EQ(paper.loss_denominator, 24);
  EXPECT_EQ(paper.first_row, 4);
  EXPECT_EQ(make_model_input(rows(), conventions_preset("t5x"), 4, 2, &whole).loss_denominator, 13);
}

TEST(ModelInput, SizesThatDoNotFitAreRefused) {
  TokenRows r = rows();
  r.rows = 3;
  EXPECT_THROW(make_model_input(r, conventions_preset("paper")), Error);
  r = rows();
  const std::vector<int32_t> segments(8, 1);
  r.input_segments = segments;
  EXPECT_THROW(make_model_input(r, conventions_preset("paper")), Error);
}

}  // namespace
}  // namespace sw
