// Token for token what Hugging Face's generate answers (tests/golden/make_generate.py).
#include <gtest/gtest.h>

#include <filesystem>

#include "libswitch/convert/hugging_face_config.h"
#include "libswitch/generate/generator.h"
#include "tests/oracle/oracle.h"

namespace sw {
namespace {

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(SW_SOURCE_DIR "/tests/golden/generate")) {
    names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class HuggingFaceGenerate : public ::testing::TestWithParam<std::string> {};

TEST_P(HuggingFaceGenerate, AnswersTheSameTokens) {
  const oracle::Json json = oracle::read_json(
      std::filesystem::path(SW_SOURCE_DIR "/tests/golden/generate") / (GetParam() + ".json"));
  const HuggingFaceConfig config =
      read_hugging_face_config(nlohmann::json::parse(json["config"].dump()), GetParam());
  Model model(config.model, DType::f32);
  oracle::fill_weights(model, config.family, json["scale"], json["prefix"]);
  int searches = 0;
  for (const oracle::Json& search : json["searches"]) {
    GenerateOptions options;
    options.beam = search["beam"];
    options.length_norm = LengthNorm::hf;
    options.length_penalty = search["length_penalty"].get<double>();
    options.max_length = json["max_length"];
    options.use_capacity = true;  // Hugging Face's experts take expert_capacity tokens of a row
    options.batch = 7;
    const auto prompts = search["prompts"].get<std::vector<std::vector<int32_t>>>();
    const auto want = search["answers"].get<std::vector<std::vector<int32_t>>>();
    ASSERT_EQ(prompts.size(), 20u);
    const std::vector<Answer> got = Generator(model, options).generate(prompts);
    for (size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ(got[i].tokens, want[i])
          << "beam " << options.beam << " penalty " << *options.length_penalty << " prompt " << i;
      if (options.beam > 1) {
        // Up to 20 logarithms, each of logits that reach some tens (an untied head does not scale
        // them down) and are good to 2e-5 of that.
        const double score = search["scores"][i];
        EXPECT_NEAR(got[i].score, score, 5e-4 * std::max(1.0, std::abs(score)));
      }
    }
    ++searches;
  }
  EXPECT_EQ(searches, 4);
}

INSTANTIATE_TEST_SUITE_P(Golden, HuggingFaceGenerate, ::testing::ValuesIn(cases()),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace sw
