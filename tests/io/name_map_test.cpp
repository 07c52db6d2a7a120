#include "libswitch/io/name_map.h"

#include <gtest/gtest.h>

#include <map>

#include "libswitch/base/error.h"

namespace sw {
namespace {

using Names = std::vector<HfTensor>;
constexpr HfFamily kSwitch = HfFamily::switch_transformers;

// Parameter names as spelled in Hugging Face's own files.
TEST(NameMap, MapsEveryKindOfParameterToItsPublicName) {
  const std::map<std::string, HfTensor> expected = {
      {"shared/embedding", {"shared.weight", -1, false}},
      {"lm_head", {"lm_head.weight", -1, false}},
      {"encoder/final_norm", {"encoder.final_layer_norm.weight", -1, false}},
      {"decoder/final_norm", {"decoder.final_layer_norm.weight", -1, false}},
      {"encoder/block_000/attn/relative_bias",
       {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", -1, true}},
      {"encoder/block_011/attn/norm", {"encoder.block.11.layer.0.layer_norm.weight", -1, false}},
      {"encoder/block_011/attn/q", {"encoder.block.11.layer.0.SelfAttention.q.weight", -1, true}},
      {"decoder/block_002/cross/o", {"decoder.block.2.layer.1.EncDecAttention.o.weight", -1, true}},
      {"decoder/block_002/cross/norm", {"decoder.block.2.layer.1.layer_norm.weight", -1, false}},
      {"encoder/block_000/mlp/norm", {"encoder.block.0.layer.1.layer_norm.weight", -1, false}},
      {"encoder/block_000/mlp/wi", {"encoder.block.0.layer.1.mlp.wi.weight", -1, true}},
      {"decoder/block_000/mlp/wo", {"decoder.block.0.layer.2.mlp.wo.weight", -1, true}},
      {"decoder/block_001/moe/norm", {"decoder.block.1.layer.2.layer_norm.weight", -1, false}},
      {"decoder/block_001/moe/router",
       {"decoder.block.1.layer.2.mlp.router.classifier.weight", -1, true}},
  };
  for (const auto& [ours, theirs] : expected) {
    EXPECT_EQ(hf_tensors(ours, kSwitch, 8), Names{theirs}) << ours;
  }
}

TEST(NameMap, SplitsExpertsInOrder) {
  EXPECT_EQ(hf_tensors("encoder/block_001/moe/wi", kSwitch, 2),
            (Names{{"encoder.block.1.layer.1.mlp.experts.expert_0.wi.weight", 0, true},
                   {"encoder.block.1.layer.1.mlp.experts.expert_1.wi.weight", 1, true}}));
  EXPECT_EQ(hf_tensors("decoder/block_003/moe/wi_1", kSwitch, 128).back(),
            (HfTensor{"decoder.block.3.layer.2.mlp.experts.expert_127.wi_1.weight", 127, true}));
}

TEST(NameMap, NamesTheDenseModuleAsEachFamilyDoes) {
  EXPECT_EQ(hf_tensors("encoder/block_000/mlp/wi_0", HfFamily::t5, 0),
            (Names{{"encoder.block.0.layer.1.DenseReluDense.wi_0.weight", -1, true}}));
  EXPECT_EQ(hf_tensors("decoder/block_004/mlp/wo", HfFamily::t5, 0),
            (Names{{"decoder.block.4.layer.2.DenseReluDense.wo.weight", -1, true}}));
}

TEST(NameMap, ReturnsFromEveryPublicNameItGives) {
  const char* rests[] = {
      "attn/norm", "attn/q",   "attn/k",   "attn/v",   "attn/o",         "attn/relative_bias",
      "mlp/norm",  "mlp/wi",   "mlp/wi_0", "mlp/wi_1", "mlp/wo",         "moe/router",
      "moe/wi",    "moe/wi_0", "moe/wi_1", "moe/wo",   "moe/router_bias"};
  for (const char* stack : {"encoder", "decoder"}) {
    for (const char* rest : rests) {
      const std::string ours = std::string(stack) + "/block_012/" + rest;
      for (const HfTensor& theirs : hf_tensors(ours, kSwitch, 3)) {
        EXPECT_EQ(our_tensor(theirs.name), (OurTensor{ours, theirs.expert, theirs.transpose}));
      }
      if (std::string_view(rest).starts_with("mlp/")) {
        const HfTensor theirs = hf_tensors(ours, HfFamily::t5, 0)[0];
        EXPECT_EQ(our_tensor(theirs.name), (OurTensor{ours, -1, theirs.transpose}));
      }
    }
  }
}

TEST(NameMap, KnowsAliasesAndPrefixesOfPublishedFiles) {
  EXPECT_EQ(our_tensor("decoder.embed_tokens.weight")->name, "shared/embedding");
  EXPECT_EQ(our_tensor("decoder.lm_head.weight")->name, "lm_head");
  EXPECT_EQ(our_tensor("switch_transformers.encoder.block.0.layer.0.SelfAttention.k.weight")->name,
            "encoder/block_000/attn/k");
  EXPECT_TRUE(is_dropped_hf_tensor(
      "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"));
  EXPECT_FALSE(is_dropped_hf_tensor("shared.weight"));
}

TEST(NameMap, RefusesNamesThatAreNotParameters) {
  for (const char* name :
       {"", "encoder", "encoder/block_000/", "encoder/block_/attn/q", "encoder/block_0/attn/q",
        "encoder/block_000/attn/qq", "encoder/block_000/cross/q",
        "encoder/block_99999999999999999999/attn/q"}) {
    EXPECT_THROW(hf_tensors(name, kSwitch, 8), Error) << name;
    EXPECT_THROW(parameter_axes(name), Error) << name;
  }
  EXPECT_THROW(hf_tensors("encoder/block_001/moe/wi", HfFamily::t5, 8), Error);
  EXPECT_THROW(hf_tensors("encoder/block_001/moe/wi", kSwitch, 0), Error);
  for (const char* name :
       {"", "encoder.block.", "encoder.block.1.", "encoder.block.x.layer.0.layer_norm.weight",
        "encoder.block.1.layer.1.mlp.experts.expert_.wi.weight",
        "encoder.block.1.layer.1.mlp.experts.expert_1.wi.weights",
        "encoder.block.1.layer.1.EncDecAttention.q.weight"}) {
    EXPECT_EQ(our_tensor(name), std::nullopt) << name;
  }
}

TEST(NameMap, LabelsDimensions) {
  using Axes = std::vector<std::string>;
  EXPECT_EQ(parameter_axes("encoder/block_001/moe/wo"), (Axes{"expert", "d_ff", "d_model"}));
  EXPECT_EQ(parameter_axes("shared/embedding"), (Axes{"vocab", "d_model"}));
  EXPECT_EQ(parameter_axes("decoder/block_000/cross/norm"), (Axes{"d_model"}));
}

}  // namespace
}  // namespace sw
