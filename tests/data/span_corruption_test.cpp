#include "libswitch/data/span_corruption.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using ::testing::Each;
using ::testing::ElementsAreArray;
using testing::error_of;

// Made by the T5 authors' own library; tests/golden/README.md.
const nlohmann::json& golden() {
  static const nlohmann::json json = nlohmann::json::parse(
      read_file(std::string(SW_SOURCE_DIR) + "/tests/golden/span_corruption.json"));
  return json;
}

std::vector<uint8_t> mask_of(int64_t length, uint64_t seed, const SpanCorruption& options = {}) {
  RngStream rng(rng_key(seed, RngPurpose::span_mask));
  return noise_mask(length, options, rng);
}

int64_t count_spans(const std::vector<uint8_t>& mask) {
  int64_t spans = 0;
  for (size_t i = 0; i < mask.size(); ++i) spans += mask[i] != 0 && (i == 0 || mask[i - 1] == 0);
  return spans;
}

TEST(SpanCorruption, ConvertsAsTheAuthorsLibraryDoes) {
  ASSERT_EQ(golden()["conversion"].size(), 12u);
  for (const auto& c : golden()["conversion"]) {
    const auto tokens = c["tokens"].get<std::vector<int32_t>>();
    const auto noise = c["noise"].get<std::vector<uint8_t>>();
    std::vector<int32_t> inputs;
    replace_noise(tokens, noise, 32099, inputs);
    EXPECT_EQ(inputs, c["inputs"].get<std::vector<int32_t>>());
    const CorruptedWindow window = corrupt_window(tokens, noise, 32099, 1, 1000, 1000);
    auto expected = c["inputs"].get<std::vector<int32_t>>();
    expected.push_back(1);
    EXPECT_EQ(window.inputs, expected);
    expected = c["targets"].get<std::vector<int32_t>>();
    expected.push_back(1);
    EXPECT_EQ(window.targets, expected);
  }
}

TEST(SpanCorruption, LengthsAreThoseOfTheAuthorsLibrary) {
  ASSERT_EQ(golden()["lengths"].size(), 42u);
  for (const auto& c : golden()["lengths"]) {
    const WindowLengths lengths =
        window_lengths(c["inputs_length"], {c["noise_density"], c["mean_span"]});
    EXPECT_EQ(lengths.tokens, c["tokens_length"].get<int64_t>()) << c;
    EXPECT_EQ(lengths.targets, c["targets_length"].get<int64_t>()) << c;
  }
}

TEST(SpanCorruption, MasksAreDistributedAsTheAuthorsAre) {
  for (const auto& c : golden()["mask_distribution"]) {
    const int64_t length = c["length"];
    const auto share = c["noise_share"].get<std::vector<double>>();
    constexpr int kDraws = 20000;
    std::vector<int> hits(static_cast<size_t>(length));
    for (int i = 0; i < kDraws; ++i) {
      const std::vector<uint8_t> mask = mask_of(length, static_cast<uint64_t>(i));
      for (size_t k = 0; k < mask.size(); ++k) hits[k] += mask[k];
    }
    for (size_t k = 0; k < hits.size(); ++k) {
      // Four standard errors of 4,000 draws there and 20,000 here.
      const double p = share[k];
      const double bound = 4 * std::sqrt((p * (1 - p) + 1e-4) * (1.0 / 4000 + 1.0 / kDraws));
      EXPECT_NEAR(hits[k] / static_cast<double>(kDraws), p, bound) << length << " at " << k;
    }
  }
}

TEST(SpanCorruption, AWindowOf568HasTheNumbersOfThePaper) {
  const WindowLengths lengths = window_lengths(512);
  EXPECT_EQ(lengths.tokens, 568);
  EXPECT_EQ(lengths.inputs, 512);
  EXPECT_EQ(lengths.targets, 114);
  std::vector<int32_t> tokens(568);
  std::iota(tokens.begin(), tokens.end(), 100);
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<uint8_t> mask = mask_of(568, seed);
    EXPECT_EQ(std::accumulate(mask.begin(), mask.end(), 0), 85);
    EXPECT_EQ(count_spans(mask), 28);
    EXPECT_EQ(mask.front(), 0);
    EXPECT_EQ(mask.back(), 1);
    const CorruptedWindow window = corrupt_window(tokens, mask, 32099, 1, 512, 114);
    ASSERT_EQ(window.inputs.size(), 512u);
    ASSERT_EQ(window.targets.size(), 114u);
    EXPECT_EQ(window.inputs.back(), 1);
    EXPECT_EQ(window.targets.back(), 1);
    size_t first = 0;
    while (mask[first] == 0) ++first;
    EXPECT_EQ(window.inputs[first], 32099);
    EXPECT_EQ(window.targets[0], 32099);
    EXPECT_LT(window.targets[112], 1000) << "the last id before the end is text";
    // Nothing is lost: text of inputs and targets together is the window.
    std::vector<int32_t> text;
    for (const auto* ids : {&window.inputs, &window.targets}) {
      for (const int32_t id : *ids) {
        if (id >= 100 && id < 1000) text.push_back(id);
      }
    }
    std::sort(text.begin(), text.end());
    EXPECT_EQ(text, tokens);
  }
}

TEST(SpanCorruption, LengthsOfOtherInputLengthsFitTheirMasks) {
  for (const auto& [inputs, tokens, targets] :
       {std::array<int64_t, 3>{64, 70, 14}, {128, 141, 29}, {256, 284, 58}, {1024, 1137, 229}}) {
    const WindowLengths lengths = window_lengths(inputs);
    EXPECT_EQ(lengths.tokens, tokens);
    EXPECT_EQ(lengths.targets, targets);
  }
  // What the formula promises, a mask of that length delivers, for every input length.
  for (int64_t inputs = 10; inputs < 1100; ++inputs) {
    const WindowLengths lengths = window_lengths(inputs);
    const std::vector<uint8_t> mask = mask_of(lengths.tokens, 1);
    const auto noise = std::accumulate(mask.begin(), mask.end(), int64_t{0});
    EXPECT_EQ(lengths.tokens - noise + count_spans(mask) + 1, lengths.inputs) << inputs;
    EXPECT_EQ(noise + count_spans(mask) + 1, lengths.targets) << inputs;
    EXPECT_LE(lengths.inputs, inputs);
    EXPECT_GT(window_lengths(inputs + 1).tokens, lengths.tokens - 1);
  }
}

TEST(SpanCorruption, ShortAndExtremeWindowsAreMasked) {
  for (int64_t length = 1; length < 40; ++length) {
    for (const SpanCorruption& options :
         {SpanCorruption{}, {0.5, 1.0}, {0.99, 1.0}, {0.01, 1.0}, {0.5, 100.0}, {0.9, 3.0}}) {
      const std::vector<uint8_t> mask = mask_of(length, 3, options);
      ASSERT_EQ(static_cast<int64_t>(mask.size()), length);
      EXPECT_EQ(mask[0], 0);
      EXPECT_EQ(mask.back(), length > 1);
    }
  }
}

TEST(SpanCorruption, EveryCompositionIsEquallyLikely) {
  // 12 tokens, 6 of them noise in 3 spans: 10 x 10 masks.
  std::map<std::string, int> seen;
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) {
    const std::vector<uint8_t> mask = mask_of(12, static_cast<uint64_t>(i), {0.5, 2.0});
    ++seen[std::string(mask.begin(), mask.end())];
  }
  ASSERT_EQ(seen.size(), 100u);
  double chi2 = 0;
  for (const auto& [mask, n] : seen) chi2 += std::pow(n - kDraws / 100.0, 2) / (kDraws / 100.0);
  EXPECT_LT(chi2, 99 + 4 * std::sqrt(2 * 99.0));
}

TEST(SpanCorruption, CutsToTheLengthsAndStillEnds) {
  const std::vector<int32_t> tokens = {10, 11, 12, 13, 14, 15};
  const std::vector<uint8_t> noise = {0, 0, 1, 1, 0, 1};
  const CorruptedWindow window = corrupt_window(tokens, noise, 99, 1, 4, 3);
  EXPECT_THAT(window.inputs, ElementsAreArray({10, 11, 99, 1}));
  EXPECT_THAT(window.targets, ElementsAreArray({99, 12, 1}));
}

TEST(SpanCorruption, RefusesImpossibleOptions) {
  error_of(ErrorKind::usage, [] { window_lengths(512, {0.0, 3.0}); });
  error_of(ErrorKind::usage, [] { window_lengths(512, {1.0, 3.0}); });
  error_of(ErrorKind::usage, [] { window_lengths(512, {0.15, 0.5}); });
  error_of(ErrorKind::usage, [] { window_lengths(1); });
}

}  // namespace
}  // namespace sw
