#include "libswitch/report/report_html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <nlohmann/json.hpp>

#include <cmath>

#include "libswitch/report/html_picture.h"
#include "tests/report/report_case.h"
#include "tests/report/router_report_samples.h"

namespace sw {
namespace {

using test::even_telemetry;
using test::report_of;
using test::skewed_telemetry;
using ::testing::HasSubstr;
using ::testing::Not;

std::string page_of(const RouterReport& report) {
  return report_html(std::vector<RouterReport>{report});
}

// Every "<script type='application/json' ...>" of the page.
std::vector<nlohmann::json> tables_of(const std::string& page) {
  const std::string begin = "<script type='application/json'", end = "</script>";
  std::vector<nlohmann::json> tables;
  for (size_t at = 0; (at = page.find(begin, at)) != std::string::npos;) {
    const size_t from = page.find('>', at) + 1, to = page.find(end, from);
    tables.push_back(nlohmann::json::parse(page.substr(from, to - from)));
    at = to;
  }
  return tables;
}

TEST(ReportHtml, NeedsNothingFromOutside) {
  const std::string page = page_of(report_of(skewed_telemetry(), "runs/a", 3));
  for (const char* word : {"http:", "https:", "src='/", "href", "@import", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(word))) << word;
  }
  EXPECT_THAT(page, HasSubstr("decoder/block_001: 1 of 4 experts dead since step 30"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
}

TEST(ReportHtml, HasATableBehindEveryPicture) {
  const std::string page = page_of(report_of(skewed_telemetry(), "runs/a", 3));
  const std::vector<nlohmann::json> tables = tables_of(page);
  ASSERT_EQ(tables.size(), 5u + 2u);  // charts; layers
  for (const nlohmann::json& table : tables) {
    ASSERT_EQ(table["head"].size(), table["columns"].size());
    for (const auto& column : table["columns"]) {
      EXPECT_EQ(column.size(), table["columns"][0].size());
    }
  }
  EXPECT_EQ(tables[0]["columns"][0], (std::vector<int>{10, 20, 30, 40, 50}));
  EXPECT_EQ(tables[0]["columns"][2][4], 2.8);
  EXPECT_EQ(tables[6]["columns"][1], (std::vector<int>{2100, 600, 300, 0}));
}

TEST(ReportHtml, ShowsNamesAsText) {
  RouterReport report = report_of(even_telemetry(), "a</script><b>.h5", 3);
  report.layers[0].statistics.name = "encoder/<script>alert('x')</script>";
  const std::string page = page_of(report);
  EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(page, Not(HasSubstr("</script><b>")));
  EXPECT_EQ(tables_of(page).size(), 7u);
}

TEST(ReportHtml, StaysBelowFiveMegabytesAtAnySize) {
  constexpr int64_t kExperts = 2048;
  RouterReport report = report_of(even_telemetry(), "runs/a");
  report.course_steps.clear();
  for (int64_t c = 0; c < kCourseColumns; ++c) report.course_steps.push_back(1000 * c);
  uint32_t state = 1;
  const auto noise = [&state] { return (state = state * 1664525 + 1013904223) >> 16; };
  for (LayerReport& layer : report.layers) {
    RouterStatistics& s = layer.statistics;
    s.experts = kExperts;
    s.chosen.clear(), s.probability.clear();
    for (int64_t e = 0; e < kExperts; ++e) {
      s.chosen.push_back(50000 + noise());
      s.probability.push_back(50000.0 + noise());
    }
    layer.course.clear();
    for (int64_t i = 0; i < kExperts * kCourseColumns; ++i) {
      layer.course.push_back(static_cast<float>(noise()) / 32768);
    }
  }
  // A run of a million steps keeps 4,096 rows at most.
  report.history_steps.resize(4096, 999999);
  for (LayerReport& layer : report.layers) {
    for (auto* series : {&layer.history.max_over_mean, &layer.history.entropy,
                         &layer.history.dropped_share, &layer.history.confidence}) {
      series->resize(4096, 0.123456789);
    }
    layer.history.dead.resize(4096, 1000);
  }
  report.layers.resize(15, report.layers[0]);
  EXPECT_LT(page_of(report).size(), 5'000'000u);
}

TEST(ReportHtml, OfADenseModelSaysSo) {
  RouterReport report;
  report.checkpoint = "dense.h5";
  EXPECT_THAT(page_of(report), HasSubstr("a dense model"));
}

TEST(HtmlPicture, Base64IsThatOfRfc4648) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xff\xfe\xfd"), "//79");
}

TEST(HtmlPicture, HeatIsByTheLogarithm) {
  EXPECT_EQ(heat_of(0), 0);
  EXPECT_EQ(heat_of(NAN), 0);
  EXPECT_EQ(heat_of(1e-9), 1);
  EXPECT_EQ(heat_of(1), 128);
  EXPECT_LT(heat_of(0.7), heat_of(1));
  EXPECT_EQ(heat_of(100), 255);
}

TEST(HtmlPicture, PngHoldsItsPixels) {
  const std::vector<uint8_t> pixels = {1, 2, 3, 4, 5, 6};
  const std::string png = heat_png(3, 2, pixels);
  EXPECT_TRUE(png.starts_with("\x89PNG\r\n\x1a\n"));
  const auto number_at = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(png.at(at + i));
    return value;
  };
  std::string pixels_read;
  for (size_t at = 8; at < png.size();) {
    const uint32_t bytes = number_at(at);
    const std::string body = png.substr(at + 4, bytes + 4);
    EXPECT_EQ(number_at(at + 8 + bytes), ::crc32(0, reinterpret_cast<const Bytef*>(body.data()),
                                                 static_cast<uInt>(body.size())));
    if (body.starts_with("IHDR")) {
      EXPECT_EQ(number_at(at + 8), 3u);
      EXPECT_EQ(number_at(at + 12), 2u);
    }
    if (body.starts_with("IDAT")) {
      pixels_read.resize(8);
      uLongf size = 8;
      ASSERT_EQ(::uncompress(reinterpret_cast<Bytef*>(pixels_read.data()), &size,
                             reinterpret_cast<const Bytef*>(body.data()) + 4, bytes),
                Z_OK);
    }
    at += 12 + bytes;
  }
  EXPECT_EQ(pixels_read, std::string("\0\1\2\3\0\4\5\6", 8));
}

TEST(HtmlPicture, ChartsTakeInAllValues) {
  const std::vector<ChartLine> lines = {{"a<b", "red", {0.3, 7.2}}};
  const std::vector<int64_t> steps = {1, 2000};
  const std::string svg = lines_svg(lines, steps, 0, 0);
  EXPECT_THAT(svg, HasSubstr(">8</text>"));
  EXPECT_THAT(svg, HasSubstr(">0</text>"));
  EXPECT_THAT(svg, HasSubstr("2,000"));
  EXPECT_THAT(svg, HasSubstr("a&lt;b"));
  const std::vector<ChartLine> gap = {{"a", "red", {1, NAN}}};
  EXPECT_THAT(lines_svg(gap, steps, 0, 0), Not(HasSubstr("nan")));
  const std::vector<ChartLine> flat = {{"a", "red", {0, 0}}};
  EXPECT_THAT(lines_svg(flat, steps, 0, 0), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace sw
