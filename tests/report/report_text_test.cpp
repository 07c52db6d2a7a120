#include "libswitch/report/report_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/report/report_case.h"
#include "tests/report/router_report_samples.h"

namespace sw {
namespace {

using test::error_of;
using test::even_telemetry;
using test::expect_fits;
using test::lines_of;
using test::report_of;
using test::skewed_telemetry;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ReportText, SparklineScalesAndAverages) {
  const std::vector<double> rising = {0, 0.125, 0.5, 0.51, 1, 2};
  EXPECT_EQ(sparkline(rising, 1, 10), "·▁▄▅██");
  const std::vector<double> halves = {1, 1, 0.5, 0.5};
  EXPECT_EQ(sparkline(halves, 1, 2), "█▄");
  EXPECT_EQ(sparkline(std::vector<double>{}, 1, 5), "");
  EXPECT_EQ(sparkline(std::vector<double>{NAN}, 1, 5), "·");
}

TEST(ReportText, HasARowPerLayer) {
  const std::vector<std::string> lines =
      lines_of(report_text(report_of(skewed_telemetry(), "runs/a", 3)));
  ASSERT_EQ(lines.size(), 9u);
  EXPECT_THAT(lines[0], HasSubstr("decoder/block_001: 1 of 4 experts dead since step 30"));
  EXPECT_THAT(lines[4], HasSubstr("3 samples of telemetry, steps 30 to 50"));
  EXPECT_EQ(lines[6],
            "# layer             load    max    cv entropy gini dead starv drop conf full");
  EXPECT_EQ(lines[7],
            "0 encoder/block_001 ▅▄▄▄   1.04  0.03   1.000 0.02    0     0 1.0% 0.50  82%");
  EXPECT_EQ(lines[8],
            "1 decoder/block_001 █▃▂·   2.80  1.08   0.578 0.55    1     0  10% 0.75  75%");
}

TEST(ReportText, HasMeansOfEncoderAndDecoderWhereBothHaveSeveralLayers) {
  RouterReport report = report_of(skewed_telemetry(), "runs/a", 3);
  EXPECT_THAT(report_text(report), Not(HasSubstr("mean of the")));
  report.layers.insert(report.layers.begin(), report.layers[0]);
  report.layers.push_back(report.layers[2]);
  report.layers[3].statistics.chosen = {300, 300, 300, 300};
  const std::vector<std::string> lines = lines_of(report_text(report));
  EXPECT_THAT(lines[lines.size() - 2], HasSubstr("mean of the encoder        1.04"));
  EXPECT_THAT(lines.back(), HasSubstr("mean of the decoder        1.90"));
  EXPECT_THAT(lines.back(), HasSubstr("  0.5 "));  // dead experts
}

TEST(ReportText, ShowsHowRoutingMoved) {
  const RouterReport report = report_of(skewed_telemetry(), "runs/a", 3);
  const std::string text = over_time_text(report);
  EXPECT_THAT(text, HasSubstr("5 samples of telemetry, steps 10 to 50"));
  EXPECT_THAT(text, HasSubstr("1 decoder/block_001  ▃▃███     2.80  █████   10.0%  ··███"));
  const std::string layer = layer_over_time_text(report, 1);
  EXPECT_THAT(layer, HasSubstr("  dead       ▁▁███  0 to 1, now 1"));
  EXPECT_THAT(layer, HasSubstr("\n       3  ▂▂···"));
}

TEST(ReportText, HasNoViewOverTimeOfData) {
  RouterReport report = report_of(skewed_telemetry(), "runs/a", 3);
  report.data = {{"a", "a.swt"}};
  EXPECT_EQ(error_of([&] { over_time_text(report); }).kind(), ErrorKind::usage);
}

TEST(ReportText, FitsEightyColumnsAtAnySize) {
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
    for (LayerReport& layer : report.layers) layer.course.assign(static_cast<size_t>(experts), 1);
    expect_fits(over_time_text(report));
    expect_fits(layer_over_time_text(report, 14));
    expect_fits(comparison_text(report, report, drift));
  }
}

TEST(ReportText, LayerShowsAllExpertsOrTheTenMostAndLeastLoaded) {
  RouterReport report = report_of(skewed_telemetry(), "a", 3);
  std::string text = layer_text(report, 1);
  EXPECT_THAT(text, HasSubstr("       0   70.00%    2.80   25.00%  ████████"));
  EXPECT_THAT(text, HasSubstr("       3    0.00%    0.00   25.00%  \n"));
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

}  // namespace
}  // namespace sw
