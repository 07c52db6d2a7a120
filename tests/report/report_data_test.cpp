#include "libswitch/report/report_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "libswitch/report/load_figures.h"
#include "tests/report/report_case.h"
#include "tests/report/router_report_samples.h"

namespace sw {
namespace {

using test::even_telemetry;
using test::lines_of;
using test::report_of;
using test::skewed_telemetry;

TEST(ReportData, JsonHasTheAgreedKeys) {
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

TEST(ReportData, CsvQuotesNames) {
  const std::vector<RouterReport> reports = {report_of(skewed_telemetry(), "a,\"b\".h5", 3)};
  const std::vector<std::string> lines = lines_of(report_csv(reports));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[2],
              ::testing::StartsWith("\"a,\"\"b\"\".h5\",0,1,decoder/block_001,4,3000,2.8,"));
  const std::vector<std::string> experts = lines_of(experts_csv(reports));
  ASSERT_EQ(experts.size(), 9u);
  EXPECT_EQ(experts[5], "\"a,\"\"b\"\".h5\",0,decoder/block_001,0,2100,0.7,2.8,0.25");
}

TEST(ReportData, JsonHasTheFiguresOverTimeOnRequest) {
  const RouterReport report = report_of(skewed_telemetry(), "a.h5", 3);
  EXPECT_FALSE(report_json(report)["layers"][0].contains("history"));
  ReportJsonParts parts;
  parts.history = true;
  const nlohmann::ordered_json json = report_json(report, parts);
  EXPECT_EQ(json["history_steps"], (std::vector<int64_t>{10, 20, 30, 40, 50}));
  EXPECT_EQ(json["layers"][1]["history"]["dead"], (std::vector<int64_t>{0, 0, 1, 1, 1}));
  EXPECT_EQ(json["layers"][1]["cv"], load_figures(report.layers[1].statistics).cv);
}

TEST(ReportData, CsvHasALinePerStepAndLayerOverTime) {
  const std::vector<RouterReport> reports = {report_of(skewed_telemetry(), "a.h5", 3)};
  const std::vector<std::string> lines = lines_of(history_csv(reports));
  ASSERT_EQ(lines.size(), 11u);
  EXPECT_THAT(lines[0], ::testing::StartsWith("checkpoint,step,name,max_over_mean,"));
  EXPECT_THAT(lines[10], ::testing::StartsWith("a.h5,50,decoder/block_001,2.8,"));
}

TEST(ReportData, CsvOfTwoHasTheDriftInTheLinesOfTheSecond) {
  const std::vector<RouterReport> reports = {report_of(even_telemetry(), "a", 3),
                                             report_of(skewed_telemetry(), "b", 3)};
  const std::vector<std::string> lines =
      lines_of(report_csv(reports, router_drift(reports[0], reports[1])));
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_THAT(lines[2], ::testing::EndsWith(",,,,,,"));
  EXPECT_THAT(lines[4], ::testing::EndsWith(",30,,,,0.45,,"));
}

}  // namespace
}  // namespace sw
