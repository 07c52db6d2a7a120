// The casts and metrics of every task against the T5 authors' library (tests/golden/README.md).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "libswitch/data/tasks/task.h"

namespace sw {
namespace {

const std::string kFolder = std::string(SW_SOURCE_DIR) + "/tests/golden/tasks/";

std::vector<std::string> lines_of(const std::string& name) {
  std::ifstream file(kFolder + name);
  EXPECT_TRUE(file) << name;
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

void expect_pairs(const std::vector<TextPair>& pairs, const std::string& expected_file) {
  const auto expected = lines_of(expected_file);
  ASSERT_EQ(pairs.size(), expected.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto pair = nlohmann::json::parse(expected[i]);
    EXPECT_EQ(pairs[i].input, pair["input"].get<std::string>()) << expected_file << ":" << i + 1;
    EXPECT_EQ(pairs[i].target, pair["target"].get<std::string>()) << expected_file << ":" << i + 1;
  }
}

class TaskCases : public testing::TestWithParam<const char*> {};

TEST_P(TaskCases, CastsAndMetricsAreThoseOfTheAuthorsLibrary) {
  const std::string name = GetParam();
  const auto task = Task::open(name + ":" + kFolder + name + ".jsonl");
  EXPECT_EQ(task->name(), name);
  expect_pairs(task->pairs(), name + ".expected.jsonl");
  if (name == "dpr") return;  // training data only
  const auto answers = lines_of(name + ".predictions.txt");
  std::ifstream file(kFolder + name + ".metrics.json");
  const auto expected = nlohmann::json::parse(file);
  for (const AnswerSource source : {AnswerSource::model, AnswerSource::elsewhere}) {
    const auto metrics = task->metrics(answers, source);
    EXPECT_EQ(metrics.size(), expected.size());
    for (const auto& [metric, value] : metrics) {
      ASSERT_TRUE(expected.contains(metric)) << metric;
      EXPECT_NEAR(value, expected[metric].get<double>(), 1e-6) << metric;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, TaskCases,
                         testing::Values("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli",
                                         "rte", "boolq", "cb", "copa", "multirc", "record",
                                         "super_glue_rte", "wic", "wsc", "dpr", "squad",
                                         "webquestions", "triviaqa", "cnn_dailymail"),
                         [](const auto& info) { return std::string(info.param); });

TEST(WscTask, IsTrainedOnTrueReferents) {
  const auto task = Task::open("wsc:" + kFolder + "wsc.jsonl");
  expect_pairs(task->training_pairs(), "wsc.train.expected.jsonl");
}

}  // namespace
}  // namespace sw
