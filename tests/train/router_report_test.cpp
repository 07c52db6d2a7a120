#include "libswitch/train/router_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>

#include "libswitch/base/error.h"
#include "libswitch/base/options_help.h"
#include "libswitch/train/router_report_condition.h"
#include "libswitch/train/router_report_text.h"
#include "tests/train/router_report_samples.h"

namespace sw {
namespace {

using test::even_telemetry;
using test::save_router_checkpoint;
using test::skewed_telemetry;
using ::testing::HasSubstr;
using ::testing::Not;

template <class Fn>
Error error_of(const Fn& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "expected an error";
  return Error(ErrorKind::internal, "none");
}

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "switch-report-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

RouterReport report_of(const RouterTelemetry& telemetry, const char* name,
                       int64_t samples = kReportSamples) {
  RouterReport report = router_report(telemetry, samples);
  report.checkpoint = name;
  report.digest = std::string(32, 'a');
  return report;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::string line;
  for (const char c : text) {
    if (c == '\n') {
      lines.push_back(line);
      line.clear();
    } else {
      line += c;
    }
  }
  return lines;
}

void expect_fits(const std::string& text) {
  for (const std::string& line : lines_of(text)) {
    EXPECT_LE(display_width(line), kReportColumns) << line;
  }
}

TEST(RouterReport, SumsTheLastSamplesOfTelemetry) {
  const RouterReport report = router_report(skewed_telemetry(), 4);
  EXPECT_EQ(report.samples, 4);
  EXPECT_EQ(report.first_step, 20);
  EXPECT_EQ(report.last_step, 50);
  ASSERT_EQ(report.layers.size(), 2u);
  const RouterStatistics& s = report.layers[1].statistics;
  EXPECT_EQ(s.name, "decoder/block_001");
  EXPECT_EQ(s.tokens, 4000);
  EXPECT_EQ(s.dropped_tokens, 400);
  EXPECT_EQ(s.chosen, (std::vector<int64_t>{2500, 900, 500, 100}));
  EXPECT_DOUBLE_EQ(s.max_over_mean(), 2.5);
  EXPECT_DOUBLE_EQ(s.dropped_share(), 0.1);
  EXPECT_DOUBLE_EQ(s.confidence(), 0.75);
  EXPECT_DOUBLE_EQ(s.aux(), 2.0);
  EXPECT_DOUBLE_EQ(s.z(), 3.0);
  EXPECT_NEAR(s.token_entropy(), 1.0 / std::log(4.0), 1e-12);
}

TEST(RouterReport, TakesAllSamplesWhenThereAreFewer) {
  const RouterReport report = router_report(skewed_telemetry(), 50);
  EXPECT_EQ(report.samples, 5);
  EXPECT_EQ(report.first_step, 10);
}

TEST(RouterReport, SaysSinceWhenExpertsAreDead) {
  EXPECT_EQ(router_report(skewed_telemetry(), 3).layers[1].dead_since, 30);
  EXPECT_EQ(router_report(skewed_telemetry(), 3).layers[0].dead_since, -1);
  // Alive in the window as a whole.
  EXPECT_EQ(router_report(skewed_telemetry(), 5).layers[1].dead_since, -1);
}

TEST(RouterReport, KeepsTheCourseOfEveryLayer) {
  const RouterReport report = router_report(skewed_telemetry(), 2);
  EXPECT_EQ(report.history_steps, (std::vector<int64_t>{10, 20, 30, 40, 50}));
  EXPECT_EQ(report.layers[1].history.dead, (std::vector<int64_t>{0, 0, 1, 1, 1}));
  EXPECT_DOUBLE_EQ(report.layers[1].history.max_over_mean[0], 1.6);
  EXPECT_DOUBLE_EQ(report.layers[1].history.max_over_mean[4], 2.8);
}

TEST(RouterReport, CountsTokensOfTopTwoByTheirProbabilities) {
  RouterTelemetry t = even_telemetry();
  for (uint64_t& count : t.tokens) count *= 2;  // two choices a token
  const RouterStatistics s = router_report(t, 5).layers[1].statistics;
  EXPECT_EQ(s.tokens, 5000);
  EXPECT_DOUBLE_EQ(s.dropped_share(), 0.1);
}

TEST(RouterReport, CountsTokensByChoicesWhereProbabilitiesAreNotFinite) {
  RouterTelemetry t = even_telemetry();
  t.prob_sum[0] = NAN;
  EXPECT_EQ(router_report(t, 5).layers[0].statistics.tokens, 5010);
}

TEST(RouterReport, RefusesImpossibleCounts) {
  RouterTelemetry t = even_telemetry();
  t.tokens[2] = ~uint64_t{0};
  const Error error = error_of([&] { router_report(t, 1); });
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("expert 2 of encoder/block_001 at step 10"));
}

TEST(RouterReport, RefusesNoSamples) {
  EXPECT_EQ(error_of([] { router_report(even_telemetry(), 0); }).kind(), ErrorKind::usage);
}

TEST(RouterReport, VerdictsNameWhatIsWrongWithALayer) {
  const std::vector<Verdict> lines = verdicts(router_report(skewed_telemetry(), 3));
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_FALSE(lines[0].good);
  EXPECT_EQ(
      lines[0].text,
      "decoder/block_001: 1 of 4 experts dead since step 30; expert 0 takes 2.8 times an even "
      "share; load is concentrated (entropy 0.58); drops 10.0 % of its tokens");
}

TEST(RouterReport, VerdictSaysThatAllIsWell) {
  RouterTelemetry t = even_telemetry();
  for (uint64_t& dropped : t.dropped) dropped = 4;
  const std::vector<Verdict> lines = verdicts(router_report(t, 50));
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_TRUE(lines[0].good);
  EXPECT_EQ(lines[0].text,
            "all 2 sparse layers are in balance: max/mean at most 1.04, no dead expert, at most "
            "0.4 % of tokens dropped");
}

TEST(RouterReport, VerdictSaysThatARouterDoesNotDecide) {
  RouterTelemetry t = even_telemetry();
  for (float& confidence : t.confidence) confidence = 0.26f;
  EXPECT_THAT(verdicts(router_report(t, 5))[0].text, HasSubstr("router does not decide"));
}

TEST(RouterReport, DriftIsTheShareOfTheLoadThatMoved) {
  const RouterReport a = report_of(even_telemetry(), "a"),
                     b = report_of(skewed_telemetry(), "b", 3);
  const std::vector<LayerDrift> drift = router_drift(a, b);
  ASSERT_EQ(drift.size(), 2u);
  EXPECT_DOUBLE_EQ(drift[0].load, 0);
  EXPECT_NEAR(drift[1].load, 0.45, 1e-12);  // 700 - 250 of 1000
  EXPECT_TRUE(std::isnan(drift[1].router_cosine));
}

TEST(RouterReport, DriftNeedsTheSameLayers) {
  RouterReport a = report_of(even_telemetry(), "a"), b = a;
  b.layers.pop_back();
  EXPECT_EQ(error_of([&] { router_drift(a, b); }).kind(), ErrorKind::corrupt);
  b = a;
  b.layers[1].statistics.name = "decoder/block_003";
  EXPECT_THAT(error_of([&] { router_drift(a, b); }).what(), HasSubstr("sparse layer 1"));
}

TEST(RouterReport, ReadsACheckpoint) {
  const Folder folder;
  save_router_checkpoint(folder / "a.h5", skewed_telemetry());
  const CheckpointReader reader(folder / "a.h5");
  const RouterReport report = router_report(reader, "a.h5", 3);
  EXPECT_EQ(report.checkpoint, "a.h5");
  EXPECT_EQ(report.step, 50);
  EXPECT_EQ(report.digest, reader.digest());
  EXPECT_EQ(report.layers[1].statistics.chosen, (std::vector<int64_t>{2100, 600, 300, 0}));
}

TEST(RouterReport, TakesTheNumberOfExpertsFromTheRouter) {
  const Folder folder;
  RouterTelemetry t = even_telemetry();
  // Room for a fifth expert that no layer has.
  RouterTelemetry wide = t;
  wide.experts = 5;
  wide.tokens.clear(), wide.prob_sum.clear();
  for (size_t i = 0; i < t.tokens.size(); ++i) {
    wide.tokens.push_back(t.tokens[i]), wide.prob_sum.push_back(t.prob_sum[i]);
    if (i % 4 == 3) wide.tokens.push_back(0), wide.prob_sum.push_back(0);
  }
  save_router_checkpoint(folder / "a.h5", wide);
  const RouterReport report = router_report(CheckpointReader(folder / "a.h5"), "a");
  EXPECT_EQ(report.layers[0].statistics.experts, 4);
  EXPECT_EQ(report.layers[0].statistics.dead(), 0);
}

TEST(RouterReport, OfADenseModelHasNoLayers) {
  const Folder folder;
  save_router_checkpoint(folder / "a.h5", {}, 1, true);
  const RouterReport report = router_report(CheckpointReader(folder / "a.h5"), "a");
  EXPECT_TRUE(report.layers.empty());
  EXPECT_THAT(report_text(report), HasSubstr("dense model"));
  EXPECT_TRUE(report_json(report)["layers"].empty());
}

TEST(RouterReport, AsksForDataWhereTelemetryIsMissing) {
  const Folder folder;
  save_router_checkpoint(folder / "a.h5", {});
  const Error error = error_of([&] { router_report(CheckpointReader(folder / "a.h5"), "a.h5"); });
  EXPECT_EQ(error.kind(), ErrorKind::missing);
  EXPECT_THAT(error.what(), HasSubstr("2 sparse layers but no router telemetry"));
}

TEST(RouterReport, RefusesTelemetryOfALayerThatTheModelLacks) {
  const Folder folder;
  RouterTelemetry t = even_telemetry();
  t.layer_name[1] = "decoder/block\n_009";
  save_router_checkpoint(folder / "a.h5", t);
  const Error error = error_of([&] { router_report(CheckpointReader(folder / "a.h5"), "a.h5"); });
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("decoder/block?_009"));
}

TEST(RouterReport, CosineComparesRoutersOfTwoCheckpoints) {
  const Folder folder;
  save_router_checkpoint(folder / "a.h5", even_telemetry(), 1);
  save_router_checkpoint(folder / "b.h5", even_telemetry(), -1);
  const CheckpointReader a(folder / "a.h5"), b(folder / "b.h5");
  std::vector<LayerDrift> drift = router_drift(router_report(a, "a"), router_report(b, "b"));
  add_router_cosines(a, a, drift);
  EXPECT_NEAR(drift[0].router_cosine, 1, 1e-12);
  add_router_cosines(a, b, drift);  // columns 0 and 2 turn round, 1 and 3 stay
  EXPECT_NEAR(drift[0].router_cosine, 0, 1e-12);
}

TEST(RouterReportText, SparklineScalesAndAverages) {
  const std::vector<double> rising = {0, 0.125, 0.5, 0.51, 1, 2};
  EXPECT_EQ(sparkline(rising, 1, 10), "·▁▄▅██");
  const std::vector<double> halves = {1, 1, 0.5, 0.5};
  EXPECT_EQ(sparkline(halves, 1, 2), "█▄");
  EXPECT_EQ(sparkline(std::vector<double>{}, 1, 5), "");
  EXPECT_EQ(sparkline(std::vector<double>{NAN}, 1, 5), "·");
}

TEST(RouterReportText, HasARowPerLayer) {
  const std::vector<std::string> lines =
      lines_of(report_text(report_of(skewed_telemetry(), "runs/a", 3)));
  ASSERT_EQ(lines.size(), 9u);
  EXPECT_THAT(lines[0], HasSubstr("decoder/block_001: 1 of 4 experts dead since step 30"));
  EXPECT_THAT(lines[4], HasSubstr("3 samples of telemetry, steps 30 to 50"));
  EXPECT_EQ(lines[7], "0 encoder/block_001  ▅▄▄▄     1.04   1.000  0/4    1.0% 0.500  1.0000");
  EXPECT_EQ(lines[8], "1 decoder/block_001  █▃▂·     2.80   0.578  1/4   10.0% 0.750  2.0000");
}

TEST(RouterReportText, FitsEightyColumnsAtAnySize) {
  for (const int64_t experts : {1, 2, 8, 64, 2048}) {
    RouterReport report = report_of(even_telemetry(), "runs/some-long-name/checkpoints/step.h5");
    report.step = 123456789;
    for (LayerReport& layer : report.layers) {
      RouterStatistics& s = layer.statistics;
      s.experts = experts;
      s.chosen.assign(static_cast<size_t>(experts), 0);
      s.chosen[0] = 1000000;
      s.chosen.back() = 10;
      s.probability.assign(static_cast<size_t>(experts), 1.0);
    }
    report.layers.resize(15, report.layers[0]);
    const std::vector<LayerDrift> drift = router_drift(report, report);
    expect_fits(report_text(report));
    expect_fits(layer_text(report, 14));
    expect_fits(comparison_text(report, report, drift));
  }
}

TEST(RouterReportText, LayerShowsAllExpertsOrTheTenMostAndLeastLoaded) {
  RouterReport report = report_of(skewed_telemetry(), "a", 3);
  std::string text = layer_text(report, 1);
  EXPECT_THAT(text, HasSubstr("       0   70.00%    2.80   25.00%  ████████"));
  EXPECT_THAT(text, HasSubstr("       3    0.00%    0.00   25.00%  \n"));
  EXPECT_THAT(text, HasSubstr("over steps 10 to 50"));
  EXPECT_THAT(text, Not(HasSubstr("between")));

  RouterStatistics& s = report.layers[1].statistics;
  s.experts = 30;
  s.chosen.clear();
  for (int64_t e = 0; e < 30; ++e) s.chosen.push_back(100 + e);
  s.probability.assign(30, 1.0);
  text = layer_text(report, 1);
  EXPECT_THAT(text, HasSubstr("(10 experts between)"));
  EXPECT_THAT(text, HasSubstr("\n      29  "));
  EXPECT_THAT(text, HasSubstr("\n       9  "));
  EXPECT_THAT(text, Not(HasSubstr("\n      10  ")));
  EXPECT_THAT(text, HasSubstr("80% to 125%         30  "));
}

TEST(RouterReportText, JsonHasTheAgreedKeys) {
  const nlohmann::ordered_json json = report_json(report_of(skewed_telemetry(), "a.h5", 3));
  EXPECT_EQ(json["checkpoint"], "a.h5");
  EXPECT_EQ(json["source"]["telemetry"]["first_step"], 30);
  const auto& layer = json["layers"][1];
  for (const char* key : {"name", "experts", "tokens", "load", "max_over_mean", "entropy", "dead",
                          "dropped_share", "confidence", "aux_loss"}) {
    EXPECT_TRUE(layer.contains(key)) << key;
  }
  EXPECT_EQ(layer["load"], (std::vector<double>{0.7, 0.2, 0.1, 0}));
  EXPECT_EQ(layer["tokens"], 3000);
  EXPECT_EQ(layer["dead_since"], 30);
  EXPECT_EQ(json["verdicts"].size(), 1u);
}

TEST(RouterReportText, CsvQuotesNames) {
  const std::vector<RouterReport> reports = {report_of(skewed_telemetry(), "a,\"b\".h5", 3)};
  const std::vector<std::string> lines = lines_of(report_csv(reports));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[2],
              ::testing::StartsWith("\"a,\"\"b\"\".h5\",0,1,decoder/block_001,4,3000,2.8,"));
  const std::vector<std::string> experts = lines_of(experts_csv(reports));
  ASSERT_EQ(experts.size(), 9u);
  EXPECT_EQ(experts[5], "\"a,\"\"b\"\".h5\",0,decoder/block_001,0,2100,0.7,2.8,0.25");
}

TEST(RouterCondition, JudgesFigures) {
  const RouterStatistics s = router_report(skewed_telemetry(), 3).layers[1].statistics;
  const auto holds = [&](const char* text) { return RouterCondition(text).holds(s); };
  EXPECT_TRUE(holds("drop>5% or dead>0"));
  EXPECT_TRUE(holds("drop >= 0.1"));
  EXPECT_FALSE(holds("drop > 10%"));
  EXPECT_TRUE(holds("dead>=25%"));
  EXPECT_FALSE(holds("dead>25%"));
  EXPECT_TRUE(holds("max/mean>2.7 and max_over_mean<2.9"));
  EXPECT_TRUE(holds("experts==4 && tokens = 3000"));
  EXPECT_TRUE(holds("confidence<0.8||aux>5"));
  EXPECT_TRUE(holds("entropy<1 and z!=2"));
  // `and` binds tighter.
  EXPECT_TRUE(holds("dead>0 or drop>1 and drop>1"));
  EXPECT_FALSE(holds("(dead>0 or drop>1) and drop>1"));
  EXPECT_FALSE(holds("drift>0"));
  const LayerDrift drift{"x", 0.25, 0};
  EXPECT_TRUE(RouterCondition("drift>20%").holds(s, &drift));
  EXPECT_TRUE(RouterCondition("dead>0 and (drift>1)").uses_drift());
  EXPECT_FALSE(RouterCondition("dead>0").uses_drift());
}

TEST(RouterCondition, SaysWhereItIsWrong) {
  const auto message = [](const std::string& text) {
    const Error error = error_of([&] { RouterCondition condition(text); });
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    return std::string(error.what());
  };
  EXPECT_THAT(message("ded>0"), HasSubstr("did you mean 'dead'"));
  EXPECT_THAT(message("drop>"), HasSubstr("expected a number at its end"));
  EXPECT_THAT(message("drop 5"), HasSubstr("expected > >= < <= == or != at '5' (character 6)"));
  EXPECT_THAT(message("(drop>5"), HasSubstr("expected ')'"));
  EXPECT_THAT(message("drop>5 dead>0"), HasSubstr("'and', 'or' or the end at 'dead>0'"));
  EXPECT_THAT(message(""), HasSubstr("a figure such as"));
  EXPECT_THAT(message("drop>inf"), HasSubstr("a number"));
  EXPECT_THAT(message("drop>1 or"), HasSubstr("its end"));
  EXPECT_THAT(message(std::string(100000, '(')), HasSubstr("fewer parentheses"));
}

// Writes the checkpoints that the cases of tests/cli/sw-inspect-router read (see the README there).
TEST(RouterReport, DISABLED_WritesTheFilesOfTheCliCases) {
  const char* folder = std::getenv("SW_SAMPLES");
  ASSERT_NE(folder, nullptr);
  const std::filesystem::path path = folder;
  save_router_checkpoint(path / "even.h5", even_telemetry());
  save_router_checkpoint(path / "skewed.h5", skewed_telemetry(), -1);
  save_router_checkpoint(path / "dense.h5", {}, 1, true);
}

}  // namespace
}  // namespace sw
