#include "libswitch/generate/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "libswitch/base/error.h"
#include "libswitch/base/rng.h"

namespace sw {
namespace {

constexpr int64_t kVocabulary = 6;

// Logits that follow from the tokens so far: a small language.
std::vector<float> logits_after(const std::vector<int32_t>& tokens, uint64_t seed) {
  uint64_t code = seed;
  for (const int32_t token : tokens) code = code * 31 + static_cast<uint64_t>(token) + 1;
  std::vector<float> logits;
  for (int64_t v = 0; v < kVocabulary; ++v) {
    logits.push_back(static_cast<float>(
        1.5 * random_normal(rng_key(code, RngPurpose::test), static_cast<uint64_t>(v))));
  }
  return logits;
}

float log_sum_exp(const float* logits) {
  double sum = 0;
  for (int64_t v = 0; v < kVocabulary; ++v) sum += std::exp(double{logits[v]});
  return static_cast<float>(std::log(sum));
}

Answer run(const GenerateOptions& options, uint64_t seed, uint64_t ordinal = 0) {
  const auto search = make_search(options, ordinal);
  std::vector<std::vector<int32_t>> rows{{}};
  while (true) {
    std::vector<float> logits;
    for (const auto& row : rows) {
      const auto more = logits_after(row, seed);
      logits.insert(logits.end(), more.begin(), more.end());
    }
    std::vector<float> log_z;
    for (size_t r = 0; r < rows.size(); ++r) log_z.push_back(log_sum_exp(&logits[r * kVocabulary]));
    search->advance(logits.data(), log_z.data(), kVocabulary);
    if (search->next().empty()) return search->answer();
    std::vector<std::vector<int32_t>> next;
    for (const Search::Next& n : search->next()) {
      next.push_back(rows[static_cast<size_t>(n.row)]);
      next.back().push_back(n.token);
    }
    rows = std::move(next);
  }
}

double log_likelihood(const std::vector<int32_t>& tokens, uint64_t seed) {
  double sum = 0;
  std::vector<int32_t> before;
  for (const int32_t token : tokens) {
    const auto logits = logits_after(before, seed);
    sum += double{logits[static_cast<size_t>(token)]} - double{log_sum_exp(logits.data())};
    before.push_back(token);
  }
  return sum;
}

// The best of all answers of up to `length` tokens.
Answer best_of_all(const GenerateOptions& options, uint64_t seed, bool ended_only) {
  Answer best{{}, -1e30};
  const std::function<void(std::vector<int32_t>&)> visit = [&](std::vector<int32_t>& tokens) {
    const bool ended = !tokens.empty() && tokens.back() == 1;
    const bool full = static_cast<int64_t>(tokens.size()) == options.max_length;
    if (ended || (full && !ended_only)) {
      const double score = log_likelihood(tokens, seed) /
                           length_divisor(options, static_cast<int64_t>(tokens.size()));
      if (score > best.score) best = {tokens, score};
    }
    if (ended || full) return;
    for (int32_t token = 0; token < kVocabulary; ++token) {
      tokens.push_back(token);
      visit(tokens);
      tokens.pop_back();
    }
  };
  std::vector<int32_t> tokens;
  visit(tokens);
  return best;
}

TEST(Search, GreedyTakesTheMostProbableTokenAndScoresTheAnswer) {
  GenerateOptions options;
  options.max_length = 12;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Answer answer = run(options, seed);
    std::vector<int32_t> before;
    for (const int32_t token : answer.tokens) {
      const auto logits = logits_after(before, seed);
      EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin());
      before.push_back(token);
    }
    EXPECT_TRUE(answer.tokens.back() == 1 || answer.tokens.size() == 12);
    const auto n = static_cast<double>(answer.tokens.size());
    EXPECT_NEAR(answer.score, log_likelihood(answer.tokens, seed) / std::pow((5 + n) / 6, 0.6),
                1e-9);
  }
}

TEST(Search, AWideBeamFindsTheBestOfAllAnswers) {
  GenerateOptions options;
  options.beam = 700;  // no row is ever lost
  options.max_length = 4;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    options.length_norm = LengthNorm::t5;
    for (const double penalty : {0.0, 0.6, 2.0}) {
      options.length_penalty = penalty;
      const Answer want = best_of_all(options, seed, true);
      const Answer got = run(options, seed);
      EXPECT_EQ(got.tokens, want.tokens);
      EXPECT_NEAR(got.score, want.score, 1e-9);
    }
    options.length_norm = LengthNorm::hf;
    options.length_penalty.reset();
    const Answer want = best_of_all(options, seed, false);
    EXPECT_EQ(run(options, seed).tokens, want.tokens);
  }
}

TEST(Search, ABeamOfOneRowLessThanTheVocabularyEndsWithAnAnswer) {
  for (const int64_t beam : {2, 3, 5}) {
    for (const LengthNorm norm : {LengthNorm::t5, LengthNorm::hf}) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        GenerateOptions options;
        options.beam = beam, options.length_norm = norm, options.max_length = 9;
        const Answer answer = run(options, seed);
        EXPECT_TRUE(answer.tokens.back() == 1 || answer.tokens.size() == 9);
        const auto n = static_cast<int64_t>(answer.tokens.size());
        EXPECT_NEAR(answer.score, log_likelihood(answer.tokens, seed) / length_divisor(options, n),
                    1e-9);
      }
    }
  }
}

// Shares of the first tokens over many prompts.
std::map<int32_t, double> first_tokens(const GenerateOptions& options) {
  std::map<int32_t, double> shares;
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) {
    shares[run(options, 7, static_cast<uint64_t>(i)).tokens.front()] += 1.0 / kDraws;
  }
  return shares;
}

TEST(Search, DrawsFollowTheTemperedDistributionAndItsCuts) {
  const auto logits = logits_after({}, 7);
  std::vector<std::pair<double, int32_t>> order;
  for (int32_t v = 0; v < kVocabulary; ++v) {
    order.push_back({std::exp(logits[static_cast<size_t>(v)] / 0.8), v});
  }
  std::sort(order.rbegin(), order.rend());
  double total = 0;
  for (const auto& entry : order) total += entry.first;
  GenerateOptions options;
  options.max_length = 1;
  options.temperature = 0.8;
  const auto expect_first = [&](size_t kept) {
    double sum = 0;
    for (size_t i = 0; i < kept; ++i) sum += order[i].first;
    const auto shares = first_tokens(options);
    EXPECT_EQ(shares.size(), kept);
    for (size_t i = 0; i < kept; ++i) {
      // Five standard deviations of a share of 40,000 draws.
      EXPECT_NEAR(shares.at(order[i].second), order[i].first / sum, 0.0125);
    }
  };
  expect_first(kVocabulary);
  options.top_k = 3;
  expect_first(3);
  options.top_k = 0;
  options.top_p = (order[0].first + 0.5 * order[1].first) / total;
  expect_first(2);
  options.top_p = 1e-9;
  expect_first(1);
}

TEST(Search, ADrawDependsOnSeedOrdinalAndPositionAlone) {
  GenerateOptions options;
  options.temperature = 1, options.max_length = 10;
  EXPECT_EQ(run(options, 3, 5), run(options, 3, 5));
  int different = 0;
  for (uint64_t ordinal = 0; ordinal < 20; ++ordinal) {
    different += run(options, 3, ordinal).tokens != run(options, 3, ordinal + 1).tokens;
  }
  EXPECT_GT(different, 10);
}

TEST(Search, LogitsThatAreNotFiniteAreRefusedByEverySearch) {
  GenerateOptions greedy, drawn, beam;
  drawn.temperature = 1;
  beam.beam = 2;
  std::vector<float> logits(kVocabulary, 0.5F);
  logits[3] = std::nanf("");
  const float log_z = log_sum_exp(logits.data());
  for (const GenerateOptions& options : {greedy, drawn, beam}) {
    try {
      make_search(options, 6)->advance(logits.data(), &log_z, kVocabulary);
      FAIL() << "was not refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::diverged);
      EXPECT_THAT(e.what(), ::testing::HasSubstr("the logits of prompt 7 are not finite"));
    }
  }
}

TEST(Search, OptionsOutOfRangeAreRefusedByName) {
  const auto refuses = [](auto change, const std::string& word) {
    GenerateOptions options;
    change(options);
    try {
      options.validate();
      FAIL() << "accepted: " << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::usage);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  };
  refuses([](GenerateOptions& o) { o.beam = 0; }, "beam");
  refuses([](GenerateOptions& o) { o.temperature = -1; }, "temperature");
  refuses([](GenerateOptions& o) { o.top_p = 0; }, "top-p");
  refuses([](GenerateOptions& o) { o.beam = 2, o.temperature = 1; }, "not both");
  refuses([](GenerateOptions& o) { o.length_penalty = NAN; }, "length-penalty");
}

}  // namespace
}  // namespace sw
