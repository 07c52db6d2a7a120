#include "libswitch/nn/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "libswitch/base/error.h"
#include "libswitch/nn/model.h"

namespace sw {
namespace {

using testing::HasSubstr;

std::map<std::string, ParameterSpec> specs_of(const ModelConfig& config) {
  std::map<std::string, ParameterSpec> by_name;
  for (const ParameterSpec& spec : parameter_specs(config)) by_name[spec.name] = spec;
  return by_name;
}

ModelConfig switch_base(int64_t experts) {
  ModelConfig config;
  config.d_model = 768, config.d_kv = 64, config.heads = 12, config.d_ff = 3072;
  config.encoder_layers = config.decoder_layers = 12;
  config.experts = experts;
  return config;
}

TEST(ModelConfig, SwitchBase128HasTwelveSparseLayersOfTheKnownSizes) {
  int64_t routers = 0;
  for (const auto& [name, spec] : specs_of(switch_base(128))) {
    if (name.ends_with("/router")) {
      ++routers;
      EXPECT_EQ(spec.elements(), 98304);
    }
  }
  EXPECT_EQ(routers, 12);
  const auto specs = specs_of(switch_base(128));
  EXPECT_EQ((specs.at("encoder/block_001/moe/wi").elements() +
             specs.at("encoder/block_001/moe/wo").elements()) /
                128,
            4718592);
}

// Fedus et al. 2022, section 2.4: truncated normal of variance s / fan_in, s = 0.1.
TEST(ModelConfig, InitialWeightsHaveThePapersScale) {
  const auto specs = specs_of(switch_base(8));
  const Initializer wi = specs.at("encoder/block_001/moe/wi").initializer;
  EXPECT_EQ(wi.kind, Initializer::Kind::truncated_normal);
  EXPECT_NEAR(wi.scale, 0.011411, 5e-7);
  EXPECT_NEAR(specs.at("encoder/block_001/moe/wo").initializer.scale, 0.005705, 5e-7);
  EXPECT_NEAR(specs.at("encoder/block_001/moe/router").initializer.scale, 0.011411, 5e-7);
  EXPECT_NEAR(specs.at("encoder/block_000/attn/q").initializer.scale, 1 / std::sqrt(768.0 * 64),
              1e-9);
  EXPECT_NEAR(specs.at("encoder/block_000/attn/k").initializer.scale, 1 / std::sqrt(768.0), 1e-9);
  EXPECT_EQ(specs.at("shared/embedding").initializer.scale, 1.0);
}

TEST(ModelConfig, DrawnWeightsHaveTheDeviationOfTheTruncatedNormal) {
  ParameterSpec spec;
  spec.name = "w";
  spec.shape = {768, 512};
  spec.initializer = {Initializer::Kind::truncated_normal, std::sqrt(0.1 / 768)};
  Parameter parameter(spec, DType::f32, Device{});
  parameter.initialize(Stream{}, 1);
  double squares = 0;
  for (const double w : parameter.master().to_vector()) squares += w * w;
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(spec.elements())), 0.010037, 3e-5);
}

TEST(ModelConfig, T5xDividesByTheTruncationAndScalesAttention) {
  ModelConfig config = switch_base(8);
  config.conventions = conventions_preset("t5x");
  const auto specs = specs_of(config);
  EXPECT_NEAR(specs.at("encoder/block_000/mlp/wi").initializer.scale * 0.87962566,
              std::sqrt(0.1 / 768), 1e-8);
  EXPECT_EQ(specs.at("encoder/block_001/moe/router").initializer.scale, 0.02);
  EXPECT_NEAR(specs.at("encoder/block_000/attn/k").initializer.scale, std::sqrt(0.1 / 768), 1e-9);
}

TEST(ModelConfig, InitialWeightsDependOnSeedAndNameOnly) {
  ParameterSpec spec;
  spec.name = "a", spec.shape = {8, 8}, spec.initializer = {Initializer::Kind::normal, 1};
  const auto draw = [&](uint64_t seed, const char* name) {
    spec.name = name;
    Parameter parameter(spec, DType::f32, Device{});
    parameter.initialize(Stream{}, seed);
    return parameter.master().to_vector();
  };
  EXPECT_EQ(draw(1, "a"), draw(1, "a"));
  EXPECT_NE(draw(1, "a"), draw(2, "a"));
  EXPECT_NE(draw(1, "a"), draw(1, "b"));
}

TEST(ModelConfig, WrongFieldsAreNamedWithWhatIsAllowed) {
  const auto message = [](void (*change)(ModelConfig&)) {
    ModelConfig config = switch_base(8);
    change(config);
    try {
      config.validate();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::usage);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message([](ModelConfig& c) { c.d_model = 0; }),
            "model: d_model is 0, expected 1 to 1048576");
  EXPECT_EQ(message([](ModelConfig& c) { c.encoder_layers = 1'000'000'000; }),
            "model: encoder_layers is 1000000000, expected 1 to 4096");
  EXPECT_EQ(message([](ModelConfig& c) { c.heads = INT64_MAX; }),
            "model: heads is 9223372036854775807, expected 1 to 1048576");
  EXPECT_THAT(message([](ModelConfig& c) { c.d_model = c.d_ff = c.experts = 1 << 20; }),
              HasSubstr("parameters, expected at most 1e16"));
  EXPECT_THAT(message([](ModelConfig& c) { c.jitter = 1; }), HasSubstr("a rate in [0, 1)"));
  EXPECT_THAT(message([](ModelConfig& c) { c.encoder_sparse_offset = 5; }),
              HasSubstr("encoder_sparse_step 2 and encoder_sparse_offset 5 do not fit"));
  EXPECT_THAT(message([](ModelConfig& c) { c.capacity_factor = NAN; }),
              HasSubstr("capacity factors"));
  EXPECT_THAT(message([](ModelConfig& c) { c.relative_buckets = 7; }), HasSubstr("even number"));
}

TEST(Conventions, AnUnknownNameGetsTheNearest) {
  try {
    conventions_preset("papr");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'paper'?"));
  }
}

}  // namespace
}  // namespace sw
