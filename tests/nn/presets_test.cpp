// Sizes of every model that the paper names, against counts made elsewhere, without allocating any.
#include <gtest/gtest.h>

#include <cmath>

#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

// The preset with T5's padded vocabulary where it names none.
ModelConfig load_preset(const std::string& name) {
  ModelConfig config = model_config_of_preset(name);
  if (config.vocab_size == 0) config.vocab_size = 32128;
  return config;
}

struct Expected {
  const char* preset;
  int64_t parameters;
};

// Hugging Face's published checkpoints by their tensors' shapes; T5 by its released sizes.
class PresetParameters : public testing::TestWithParam<Expected> {};
TEST_P(PresetParameters, AreThoseOfThePublishedModel) {
  EXPECT_EQ(count_parameters(load_preset(GetParam().preset)).total, GetParam().parameters);
}
INSTANTIATE_TEST_SUITE_P(
    All, PresetParameters,
    testing::Values(Expected{"t5-small", 60506624}, Expected{"t5-base", 222903552},
                    Expected{"t5-large", 737668096}, Expected{"switch-base-8", 619339008},
                    Expected{"switch-base-16", 1072397568}, Expected{"switch-base-32", 1978514688},
                    Expected{"switch-base-64", 3790748928}, Expected{"switch-base-128", 7415217408},
                    Expected{"switch-base-256", 14664154368},
                    Expected{"switch-large-128", 26309291008},
                    Expected{"switch-xxl-128", 394675073024},
                    Expected{"switch-c-2048", 1571327875360}, Expected{"t5-v1.1-base", 247577856},
                    Expected{"t5-v1.1-large", 783150080}, Expected{"mt5-base", 582401280}),
    [](const auto& info) {
      std::string name = info.param.preset;
      for (char& c : name) {
        if (c == '-' || c == '.') c = '_';
      }
      return name;
    });

TEST(Presets, RoundedSizesOfThePaperHold) {
  const auto billions = [](const char* preset) {
    return static_cast<double>(count_parameters(load_preset(preset)).total) / 1e9;
  };
  EXPECT_NEAR(billions("switch-base-2"), 0.280, 0.0005);
  EXPECT_NEAR(billions("switch-base-4"), 0.393, 0.0005);
  EXPECT_NEAR(billions("t5-xxl"), 11.14, 0.005);
}

// Fedus et al. 2022, table 9, "FLOPs/seq": inputs of 512 and targets of 114 tokens.
TEST(Presets, ForwardFlopsAreThoseOfThePapersTable) {
  const auto flops = [](const char* preset) { return paper_flops(load_preset(preset), 512, 114); };
  EXPECT_NEAR(flops("t5-base") / 124.6e9, 1, 5e-4);
  EXPECT_NEAR(flops("t5-large") / 424.9e9, 1, 5e-4);
  EXPECT_NEAR(flops("t5-xxl") / 6.26e12, 1, 2e-3);
  EXPECT_EQ(flops("switch-base-128"), flops("t5-base"));
  EXPECT_EQ(flops("switch-large-128"), flops("t5-large"));
}

TEST(Presets, ATokenUsesAsManyParametersAsTheDenseTwinAndTheRouters) {
  const int64_t dense = count_parameters(load_preset("t5-base")).total;
  EXPECT_EQ(count_parameters(load_preset("switch-base-128")).active, dense + 12 * 768 * 128);
}

TEST(Presets, EveryFileOfTheFolderLoads) {
  for (const char* name : {"t5-v1.1-small", "t5-v1.1-xxl", "switch-base-plus", "moe-base-128",
                           "mswitch-base", "tiny", "mini", "switch-base-8-cut"}) {
    EXPECT_NO_THROW(load_preset(name)) << name;
  }
  EXPECT_EQ(load_preset("moe-base-128").router, "top2");
  EXPECT_EQ(load_preset("tiny").experts, 8);
}

TEST(Presets, SwitchLayersLieWhereTheReleasedModelsHaveThem) {
  const ModelConfig base = load_preset("switch-base-8");
  EXPECT_FALSE(base.encoder_layer_is_sparse(0));
  EXPECT_TRUE(base.encoder_layer_is_sparse(1));
  EXPECT_TRUE(base.decoder_layer_is_sparse(11));
  EXPECT_TRUE(load_preset("switch-c-2048").encoder_layer_is_sparse(0));
}

}  // namespace
}  // namespace sw
