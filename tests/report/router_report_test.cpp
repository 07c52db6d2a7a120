#include "libswitch/report/router_report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <span>

#include "libswitch/base/file.h"
#include "libswitch/report/report_data.h"
#include "libswitch/report/report_text.h"
#include "libswitch/report/router_drift.h"
#include "tests/report/report_case.h"
#include "tests/report/router_report_samples.h"

namespace sw {
namespace {

using test::error_of;
using test::even_telemetry;
using test::Folder;
using test::report_of;
using test::save_router_checkpoint;
using test::skewed_telemetry;
using ::testing::HasSubstr;

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

TEST(RouterReport, TellsHowFullTheSlotsAre) {
  const RouterReport report = router_report(skewed_telemetry(), 3);
  EXPECT_DOUBLE_EQ(report.layers[0].capacity_use, 990.0 / 1200);
  EXPECT_DOUBLE_EQ(report.layers[1].capacity_use, 900.0 / 1200);
  RouterTelemetry t = skewed_telemetry();
  for (uint64_t& count : t.tokens) count *= 2;  // two choices a token: who was kept is not told
  EXPECT_TRUE(std::isnan(router_report(t, 3).layers[0].capacity_use));
  t = skewed_telemetry();
  for (uint64_t& capacity : t.capacity) capacity = 10;  // fewer slots than tokens kept
  EXPECT_TRUE(std::isnan(router_report(t, 3).layers[0].capacity_use));
}

TEST(RouterReport, AveragesTheLoadOfExpertsOverPartsOfTheRun) {
  RouterReport report = router_report(skewed_telemetry(), 2);
  EXPECT_EQ(report.course_steps, report.history_steps);
  ASSERT_EQ(report.layers[1].course.size(), 20u);
  EXPECT_FLOAT_EQ(report.layers[1].course[0], 1.6f);
  EXPECT_FLOAT_EQ(report.layers[1].course[4 * 4], 2.8f);
  const auto rising = [](int64_t row, int64_t) {
    const auto on_first = static_cast<uint64_t>(100 + row);
    return std::vector<uint64_t>{on_first, 1000 - on_first, 0, 0};
  };
  report = router_report(test::telemetry_of(2 * kCourseColumns, rising), 2);
  ASSERT_EQ(report.course_steps.size(), static_cast<size_t>(kCourseColumns));
  EXPECT_EQ(report.course_steps[1], 30);
  EXPECT_FLOAT_EQ(report.layers[0].course[0], 0.402f);  // of 100 and 101 in 250
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

TEST(RouterReport, AddsTheHistoryToAReportFromData) {
  const Folder folder;
  save_router_checkpoint(folder / "a.h5", skewed_telemetry());
  const CheckpointReader reader(folder / "a.h5");
  RouterReport report = report_of(even_telemetry(), "a.h5");
  report.history_steps.clear();
  report.layers[1].history = {};
  add_history(reader, report);
  EXPECT_EQ(report.history_steps.size(), 5u);
  EXPECT_EQ(report.layers[1].history.dead, (std::vector<int64_t>{0, 0, 1, 1, 1}));
  EXPECT_EQ(report.layers[1].course.size(), 20u);
  EXPECT_EQ(report.layers[1].statistics.dead(), 0);  // the figures stay those of the data
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

TEST(RouterReport, ReadsNoWeights) {
  const Folder folder;
  save_router_checkpoint(folder / "a.h5", skewed_telemetry());
  std::string bytes = read_file(folder / "a.h5");
  std::string weights;  // a router of ones
  for (int i = 0; i < 12; ++i) weights += std::string("\0\0\x80\x3f", 4);
  const size_t at = bytes.find(weights);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 2] ^= 1;
  std::ofstream(folder / "a.h5", std::ios::binary) << bytes;
  const CheckpointReader reader(folder / "a.h5");
  EXPECT_EQ(router_report(reader, "a.h5").layers.size(), 2u);
  int refused = 0;
  for (const char* path :
       {"/model/encoder/block_001/moe/router", "/model/decoder/block_001/moe/router"}) {
    try {
      reader.read(path);
    } catch (const Error& error) {
      refused += error.kind() == ErrorKind::corrupt;
    }
  }
  EXPECT_EQ(refused, 1);
}

// A checkpoint as large as Switch-Base's with 256 experts and a long run's telemetry, to see that
// its size costs a report nothing. Takes 15 GB in $SW_SAMPLES.
TEST(RouterReport, DISABLED_WritesALargeCheckpoint) {
  constexpr int64_t kLayers = 12, kExperts = 256, kWidth = 768;
  const char* folder = std::getenv("SW_SAMPLES");
  ASSERT_NE(folder, nullptr);
  std::vector<TensorEntry> entries;
  RouterTelemetry t;
  t.experts = kExperts;
  for (int64_t l = 0; l < kLayers; ++l) {
    const std::string name =
        fmt::format("{}/block_{:03}", l < 6 ? "encoder" : "decoder", l % 6 * 2 + 1);
    t.layer_name.push_back(name);
    const std::string path = "/model/" + name + "/moe/";
    entries.push_back({path + "router", DType::f32, {kWidth, kExperts}, {"d_model", "expert"}});
    for (const char* matrix : {"wi", "wo"}) {
      entries.push_back(
          {path + matrix, DType::f32, {kExperts, kWidth, kWidth}, {"expert", "in", "out"}});
    }
  }
  uint32_t state = 1;
  for (int64_t row = 0; row < 1800; ++row) {
    t.step.push_back(500 * (row + 1));
    for (int64_t cell = 0; cell < kLayers * kExperts; ++cell) {
      state = state * 1664525 + 1013904223;
      const bool dead = cell / kExperts == 9 && cell % 37 == 5 && row > 80;
      t.tokens.push_back(dead ? 0 : 100 + (state >> 16) % 100);
      t.prob_sum.push_back(150);
    }
    t.dropped.insert(t.dropped.end(), kLayers, 800);
    t.capacity.insert(t.capacity.end(), kLayers, 190);
    for (auto* series : {&t.entropy, &t.confidence, &t.aux, &t.z}) {
      series->insert(series->end(), kLayers, 0.5f);
    }
  }
  CheckpointMeta meta;
  meta.step = t.step.back();
  meta.optimizer = "adafactor";
  Telemetry telemetry;
  telemetry.router = std::move(t);
  CheckpointWriter writer(std::filesystem::path(folder) / "large.h5", entries, meta, telemetry);
  for (const TensorEntry& entry : entries) {
    Tensor tensor = Tensor::empty(entry.shape, entry.dtype);
    for (float& value :
         std::span(tensor.data<float>(), static_cast<size_t>(entry.shape.elements()))) {
      state = state * 1664525 + 1013904223;
      value = static_cast<float>(state) * 0x1p-40f;
    }
    writer.write_tensor(entry.path, tensor);
  }
  EXPECT_GT(writer.finish().bytes, int64_t{10'000'000'000});
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
