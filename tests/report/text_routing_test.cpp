#include "libswitch/report/text_routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "libswitch/report/load_figures.h"
#include "libswitch/report/report_text.h"
#include "libswitch/train/step.h"
#include "tests/report/report_case.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kIds = 128;

// Runs the small model over one made-up batch with padding.
TextRoutingRecorder recorded(StepResult& result) {
  ModelConfig config = testing::small_model();
  Model model(config, DType::f32);
  model.initialize(5);
  TextRoutingRecorder recorder(config.vocab_size, 2, true);
  const Batch batch = testing::made_up_batch(1, 8, true);
  result = evaluate_batch(model, token_rows(batch), 1,
                          [&](Context& context, const Model& running, const ModelInput& input,
                              const ForwardOptions& options) {
                            ForwardResult forward = running.forward(context, input, options);
                            recorder.observe(1, input, forward);
                            return forward;
                          });
  return recorder;
}

TEST(TextRouting, CountsEveryRealTokenOnceInEveryLayer) {
  StepResult result;
  TextRoutingRecorder recorder = recorded(result);
  ASSERT_EQ(recorder.layers().size(), result.layers.size());
  const TextRouting& text = recorder.text();
  for (size_t i = 0; i < recorder.layers().size(); ++i) {
    const LayerTokens& layer = recorder.layers()[i];
    EXPECT_EQ(layer.decoder, result.layers[i].name.starts_with("decoder"));
    const std::vector<int64_t>& seen = text.tokens(layer.decoder);
    const int64_t tokens = std::accumulate(seen.begin(), seen.end(), int64_t{0});
    EXPECT_EQ(layer.tokens(), tokens);
    EXPECT_EQ(static_cast<int64_t>(layer.path.size()), tokens);
    EXPECT_EQ(std::accumulate(layer.confidence.begin(), layer.confidence.end(), int64_t{0}),
              tokens);
    EXPECT_EQ(layer.domain_load[1], layer.load);
    EXPECT_EQ(layer.domain_load[0], std::vector<int64_t>(layer.load.size(), 0));
    std::vector<int64_t> of_token(seen.size()), of_expert(layer.load.size());
    for (const auto& [key, count] : layer.counts) {
      of_token[key / static_cast<uint64_t>(layer.experts)] += count;
      of_expert[key % static_cast<uint64_t>(layer.experts)] += count;
    }
    EXPECT_EQ(of_token, seen);
    EXPECT_EQ(of_expert, layer.load);
    EXPECT_LT(layer.neighbours, tokens);
    EXPECT_LE(layer.same_as_previous, layer.neighbours);
  }
  EXPECT_EQ(text.encoder_tokens[0], 0);  // padding is no token
}

// Two experts; ids 3 and 4 go to expert 0, 5 mostly to expert 1.
LayerTokens made_up_layer() {
  LayerTokens layer;
  layer.experts = 2;
  layer.load = {60, 40};
  layer.domain_load = {{60, 0}, {0, 40}};
  layer.counts = {{3 * 2, 40}, {4 * 2, 10}, {5 * 2, 10}, {5 * 2 + 1, 30}, {6 * 2 + 1, 10}};
  layer.neighbours = 90;
  layer.same_as_previous = 45;
  layer.confidence.assign(1000, 0);
  for (size_t i = 0; i < 1000; i += 10) layer.confidence[i] = 1;
  return layer;
}

std::vector<int64_t> made_up_text() {
  std::vector<int64_t> text(kIds);
  text[3] = 40, text[4] = 10, text[5] = 40, text[6] = 10;
  return text;
}

TEST(TextRouting, FindsTheTokensThatSetAnExpertApart) {
  const auto tops = top_tokens(made_up_layer(), made_up_text(), 5);
  ASSERT_EQ(tops.size(), 2u);
  ASSERT_EQ(tops[0].size(), 2u);  // id 5 goes there less than its part
  EXPECT_EQ(tops[0][0].id, 3);
  EXPECT_EQ(tops[0][0].count, 40);
  EXPECT_DOUBLE_EQ(tops[0][0].lift, (40.0 / 60) / (40.0 / 100));
  EXPECT_EQ(tops[1][0].id, 5);
  EXPECT_EQ(tops[1][1].id, 6);
  EXPECT_EQ(top_tokens(made_up_layer(), made_up_text(), 1)[1].size(), 1u);
}

TEST(TextRouting, SaysWhatDecides) {
  const LayerTokens layer = made_up_layer();
  EXPECT_DOUBLE_EQ(decided_by_token(layer, made_up_text()), 0.9);
  EXPECT_TRUE(std::isnan(decided_by_token(layer, std::vector<int64_t>(kIds, 1))));
  EXPECT_DOUBLE_EQ(layer.same_share(), 0.5);
  EXPECT_DOUBLE_EQ(layer.same_by_chance(), 0.36 + 0.16);
  const std::vector<double> deciles = layer.confidence_deciles();
  ASSERT_EQ(deciles.size(), 9u);
  EXPECT_NEAR(deciles[4], 0.49, 0.002);
}

TEST(TextRouting, CountsClasses) {
  std::vector<TokenClass> classes(kIds, TokenClass::word);
  classes[5] = TokenClass::number;
  const auto table = class_counts(made_up_layer(), classes);
  EXPECT_THAT(table[static_cast<size_t>(TokenClass::number)], ElementsAre(10, 30));
  EXPECT_THAT(table[static_cast<size_t>(TokenClass::word)], ElementsAre(50, 10));
}

TEST(TextRouting, FitsEightyColumns) {
  RouterReport report;
  report.checkpoint = "a.h5";
  report.digest = std::string(32, 'a');
  for (int d = 0; d < 2; ++d) report.data.push_back({std::string(30, 'd'), "d.swt"});
  TextRouting text;
  text.encoder_tokens = text.decoder_tokens = made_up_text();
  text.pieces.assign(kIds, "▁a_rather_long_piece");
  text.classes.assign(kIds, TokenClass::punctuation);
  report.text = std::make_shared<const TextRouting>(text);
  LayerReport layer;
  layer.statistics.name = "encoder/block_001";
  layer.statistics.gate_sum = 90;
  layer.statistics.experts = 2;
  layer.statistics.chosen = layer.statistics.kept = {60, 40};
  layer.statistics.tokens = 100;
  layer.statistics.probability = {50, 50};
  layer.tokens = std::make_shared<const LayerTokens>(made_up_layer());
  report.layers.assign(12, layer);
  test::expect_fits(report_text(report));
  test::expect_fits(layer_text(report, 3));
  EXPECT_THAT(report_text(report), HasSubstr("1.000 █·"));  // the domains share no expert
  EXPECT_THAT(layer_text(report, 3), HasSubstr("▁a_rather_long_piece 40 1.7x"));
}

TEST(TokenClass, IsToldFromThePiece) {
  const auto name = [](const char* piece) { return token_class_name(token_class(piece, 50)); };
  EXPECT_EQ(name("<extra_id_7>"), "sentinels");
  EXPECT_EQ(name(","), "punctuation");
  EXPECT_EQ(name("▁"), "punctuation");
  EXPECT_EQ(name("▁“"), "punctuation");
  EXPECT_EQ(name("▁1984"), "numbers");
  EXPECT_EQ(name("▁the"), "function words");
  EXPECT_EQ(name("▁The"), "function words");
  EXPECT_EQ(name("▁London"), "capitalised");
  EXPECT_EQ(name("▁Über"), "capitalised");
  EXPECT_EQ(name("▁house"), "other words");
  EXPECT_EQ(name("▁дом"), "other words");
  EXPECT_EQ(name("ing"), "parts of words");
  EXPECT_EQ(name("the"), "parts of words");
  EXPECT_EQ(name("\xff"), "punctuation");
  EXPECT_EQ(token_class_name(token_class("</s>", 1)), "start and end");
}

TEST(LoadFigures, AreThoseOfTheTextbook) {
  const std::vector<int64_t> even = {5, 5, 5, 5}, one = {20, 0, 0, 0}, mixed = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(load_figures(even).cv, 0);
  EXPECT_DOUBLE_EQ(load_figures(even).gini, 0);
  EXPECT_DOUBLE_EQ(load_figures(even).min_over_mean, 1);
  EXPECT_DOUBLE_EQ(load_figures(one).cv, std::sqrt(3.0));
  EXPECT_DOUBLE_EQ(load_figures(one).gini, 0.75);
  EXPECT_DOUBLE_EQ(load_figures(mixed).gini, 0.25);
  EXPECT_DOUBLE_EQ(load_figures(mixed).cv, std::sqrt(1.25) / 2.5);
  const std::vector<int64_t> starving = {1000, 1000, 1000, 50, 1};
  EXPECT_EQ(load_figures(starving).starving, 1);  // the last is dead
  EXPECT_EQ(load_figures(std::vector<int64_t>{0, 0}).cv, 0);
}

TEST(LoadFigures, DivergenceIsNormalised) {
  const std::vector<int64_t> a = {10, 0}, b = {0, 3}, c = {5, 5}, none = {0, 0};
  using Spans = std::vector<std::span<const int64_t>>;
  EXPECT_DOUBLE_EQ(jensen_shannon(Spans{a, a}), 0);
  EXPECT_DOUBLE_EQ(jensen_shannon(Spans{a, b}), 1);
  EXPECT_DOUBLE_EQ(jensen_shannon(Spans{a, none}), 0);
  // H(3/4, 1/4) - H(1/2, 1/2) / 2 in bits.
  EXPECT_NEAR(jensen_shannon(Spans{a, c}), 0.311278, 1e-6);
}

TEST(DataDomain, TakesItsNameFromTheOptionOrTheFile) {
  EXPECT_EQ(parse_data_domain("news=dir/a.swt").name, "news");
  EXPECT_EQ(parse_data_domain("news=dir/a.swt").file, "dir/a.swt");
  EXPECT_EQ(parse_data_domain("dir/a.swt").name, "a");
  EXPECT_EQ(test::error_of([] { parse_data_domain("=a.swt"); }).kind(), ErrorKind::usage);
  EXPECT_EQ(test::error_of([] { parse_data_domain("a="); }).kind(), ErrorKind::usage);
  const test::Folder folder;
  const std::string existing = (folder / "a=b.swt").string();
  std::ofstream(existing) << "x";
  EXPECT_EQ(parse_data_domain(existing).file, existing);
}

}  // namespace
}  // namespace sw
