#include "libswitch/train/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "libswitch/base/file.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsTest : public testing::TrainingTest {
 protected:
  std::filesystem::path file() const { return path("metrics.jsonl"); }
  static nlohmann::ordered_json row(int64_t step) {
    TrainMetrics metrics;
    metrics.step = step;
    return to_json(metrics);
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> steps;
    std::ifstream in(file());
    for (std::string line; std::getline(in, line);) {
      steps.push_back(nlohmann::json::parse(line)["step"]);
    }
    return steps;
  }
};

TEST_F(MetricsTest, TrainingRowsBearTheNamesOfTheContract) {
  const nlohmann::ordered_json json = row(3);
  for (const char* name :
       {"kind", "step", "time", "loss", "aux_loss", "z_loss", "grad_norm", "lr", "tokens",
        "tokens_per_second", "share_of_peak", "dropped_share", "max_over_mean_load", "dead_experts",
        "data_wait_share", "step_seconds"}) {
    EXPECT_TRUE(json.contains(name)) << name;
  }
  EXPECT_EQ(json["kind"], "train");
  Evaluation evaluation;
  const auto eval = to_json(evaluation, 3);
  for (const char* name :
       {"kind", "step", "time", "data", "neg_log_perplexity", "tokens", "dropped_share"}) {
    EXPECT_TRUE(eval.contains(name)) << name;
  }
  EXPECT_EQ(eval["kind"], "eval");
}

TEST_F(MetricsTest, WritesWhatIsNotFiniteAsNull) {
  TrainMetrics metrics;
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.fault = "loss is not finite";
  const auto json = to_json(metrics);
  EXPECT_TRUE(json["loss"].is_null());
  EXPECT_EQ(json["skipped"], "loss is not finite");
}

TEST_F(MetricsTest, CutsStepsBeyondTheResumedOne) {
  {
    MetricsFile metrics(file(), 0);
    for (int64_t step = 1; step <= 5; ++step) metrics.append(row(step));
  }
  MetricsFile metrics(file(), 3);
  EXPECT_FALSE(metrics.has_evaluation());
  metrics.append(row(4));
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST_F(MetricsTest, KeepsTheEvaluationOfTheResumedStepAndSaysSo) {
  {
    MetricsFile metrics(file(), 0);
    metrics.append(row(1));
    metrics.append(to_json(Evaluation{}, 1));
    metrics.append(row(2));
  }
  MetricsFile metrics(file(), 1);
  EXPECT_TRUE(metrics.has_evaluation());
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 1}));
}

TEST_F(MetricsTest, DropsATornLastLine) {
  {
    MetricsFile metrics(file(), 0);
    metrics.append(row(1));
  }
  std::ofstream(file(), std::ios::app) << R"({"kind":"train","step":2,"lo)";
  MetricsFile metrics(file(), 1);
  metrics.append(row(2));
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
}

TEST_F(MetricsTest, KeepsLinesThatTheDiskDidNotTakeForLater) {
  MetricsFile metrics(file(), 0);
  metrics.append(row(1));
  struct rlimit before {};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  // The second line fits in part only.
  const struct rlimit full { std::filesystem::file_size(file()) + 10, before.rlim_max };
  setrlimit(RLIMIT_FSIZE, &full);
  metrics.append(row(2));
  EXPECT_THROW(metrics.sync(), Error);
  setrlimit(RLIMIT_FSIZE, &before);
  metrics.append(row(3));
  metrics.sync();
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2, 3}));
}

TEST_F(MetricsTest, LineShowsTheFieldsInOrder) {
  TrainMetrics metrics;
  metrics.step = 1200;
  metrics.loss = 2.18431;
  metrics.aux_loss = 1.02e-2;
  metrics.grad_norm = 0.42;
  metrics.lr = 1e-3;
  metrics.tokens_per_second = 412345;
  metrics.share_of_peak = 0.512;
  metrics.dropped_share = 0.012;
  metrics.max_over_mean_load = 1.18;
  metrics.data_wait_share = 0.003;
  LineFacts facts;
  facts.steps = 6000;
  facts.checkpoint_age = 750;
  facts.eta = 533000;
  facts.memory_bytes = 61200000000;
  EXPECT_EQ(train_line(metrics, facts),
            "step 1200/6000 20.0% | loss 2.1843 | aux 1.02e-02 z 0.00e+00 | gnorm 0.42 | lr "
            "1.00e-03 | 412.3k tok/s | mfu 51.2% | drop 1.2% bal 1.18 dead 0 | mem 61.2G | data "
            "0.3% ckpt 12m30s | eta 6d04h");
  metrics.max_over_mean_load = 0;
  EXPECT_THAT(train_line(metrics, facts), Not(HasSubstr("drop")));
  metrics.cross_entropy = 2.5;
  metrics.soft_cross_entropy = 2.25;
  EXPECT_THAT(train_line(metrics, facts),
              HasSubstr("| loss 2.1843 hard 2.5000 soft 2.2500 | gnorm"));
}

TEST_F(MetricsTest, RoundsDurationsAndCounts) {
  EXPECT_EQ(rough_duration(8.4), "8s");
  EXPECT_EQ(rough_duration(67 * 60), "1h07m");
  EXPECT_EQ(rough_count(999), "999");
  EXPECT_EQ(rough_count(1234567), "1.23M");
  EXPECT_EQ(rough_count(999960), "1.00M");
}

}  // namespace
}  // namespace sw
