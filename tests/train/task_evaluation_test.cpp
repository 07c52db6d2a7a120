#include "libswitch/train/task_evaluation.h"

#include <cmath>

#include "libswitch/train/evaluation.h"
#include "tests/data/data_test_support.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::small_tokenizer;

class TaskEvaluationTest : public DataTest {
 protected:
  static ModelConfig config() {
    ModelConfig config = testing::small_model();
    config.vocab_size = small_tokenizer().padded_vocab_size();
    config.init_scale = 30;  // answers that differ
    return config;
  }
  std::unique_ptr<Task> pairs(const std::vector<TextPair>& pairs) {
    std::string text;
    for (const TextPair& pair : pairs) text += pair.input + "\t" + pair.target + "\n";
    return Task::open(write("pairs.tsv", text).string());
  }
};

TEST_F(TaskEvaluationTest, AnswersStandInTheOrderOfTheirPairs) {
  Model model(config(), DType::f32);
  model.initialize(3);
  const Tokenizer& tokenizer = small_tokenizer();
  const std::vector<std::string> inputs{"ba",    "ke li mo nu ra",        "",
                                        "se ti", "vo za cha dro fle gri", "plu sta"};
  AnswerOptions options;
  options.max_length = 5;
  options.rows = 4;
  // What the model answers to each prompt by itself is the target, but for the last one.
  std::vector<TextPair> asked;
  std::vector<std::string> expected;
  GenerateOptions short_answers;
  short_answers.max_length = 5;
  Generator alone(model, short_answers);
  for (const std::string& input : inputs) {
    std::vector<int32_t> prompt = tokenizer.encode(input);
    prompt.push_back(Tokenizer::kEos);
    expected.push_back(tokenizer.decode(alone.generate({{prompt}}).at(0).tokens));
    asked.push_back({input, expected.back()});
  }
  EXPECT_NE(expected[0], expected[1]);
  asked.back().target += " ba";
  const TaskEvaluation evaluation(pairs(asked), tokenizer, "name", options);
  std::vector<std::string> answers;
  const Evaluation result = evaluation.evaluate(model, {}, {true, &answers, {}});
  EXPECT_EQ(answers, expected);
  EXPECT_EQ(result.data, "name");
  EXPECT_EQ(result.sequences, 6);
  ASSERT_EQ(result.metrics.size(), 1U);
  EXPECT_EQ(result.metrics[0].first, "accuracy");
  EXPECT_NEAR(result.metrics[0].second, 500.0 / 6, 1e-9);
  EXPECT_TRUE(std::isfinite(result.neg_log_perplexity));
  EXPECT_LT(result.neg_log_perplexity, 0);
}

TEST_F(TaskEvaluationTest, LongTargetsAreSearchedForByFourBeams) {
  const auto of = [&](const std::string& name, const std::string& record) {
    return AnswerOptions{}.for_task(*Task::open(name + ":" + write(name, record).string()));
  };
  const GenerateOptions classes = of("cola", R"({"sentence": "s", "label": 0})");
  EXPECT_EQ(classes.beam, 1);
  EXPECT_EQ(classes.max_length, 84);
  const GenerateOptions summaries = of("cnn_dailymail", R"({"article": "a", "highlights": "h"})");
  EXPECT_EQ(summaries.beam, 4);
  EXPECT_EQ(summaries.max_length, 512);
  EXPECT_EQ(summaries.length_norm, LengthNorm::t5);
  AnswerOptions given;
  given.beam = 2, given.max_length = 7;
  const auto task = pairs({{"a", "b"}});
  EXPECT_EQ(given.for_task(*task).beam, 2);
  EXPECT_EQ(given.for_task(*task).max_length, 7);
  // A target length that was given counts instead of the task's, and --max-length still more.
  EXPECT_EQ(AnswerOptions{}.for_task(*task, 129).beam, 4);
  EXPECT_EQ(AnswerOptions{}.for_task(*task, 129).max_length, 129);
  EXPECT_EQ(given.for_task(*task, 129).max_length, 7);
}

TEST_F(TaskEvaluationTest, AnswersStopAtTheTargetLengthThatWasGiven) {
  Model model(config(), DType::f32);
  model.initialize(3);
  const auto longest = [&](int64_t target_length) {
    const TaskEvaluation evaluation(pairs({{"ba ke", "li"}, {"se ti", "mo"}}), small_tokenizer(),
                                    "name", AnswerOptions{}, 24, target_length);
    std::vector<std::string> answers;
    evaluation.evaluate(model, {}, {false, &answers, {}});
    size_t most = 0;
    for (const auto& answer : answers) {
      most = std::max(most, small_tokenizer().encode(answer).size());
    }
    return most;
  };
  EXPECT_LE(longest(3), 3U);
  EXPECT_GT(longest(12), 3U);
}

TEST_F(TaskEvaluationTest, ATestSetIsAnsweredWithoutMetrics) {
  Model model(config(), DType::f32);
  model.initialize(3);
  const TaskEvaluation evaluation(
      Task::open("cola:" + write("cola",
                                 "{\"sentence\": \"ba ke\", \"label\": -1}\n"
                                 "{\"sentence\": \"li mo\"}\n")
                               .string()),
      small_tokenizer(), "name", AnswerOptions{}, 24, 3);
  std::vector<std::string> answers;
  const Evaluation result = evaluation.evaluate(model, {}, {false, &answers, {}});
  EXPECT_EQ(answers.size(), 2U);
  EXPECT_TRUE(result.metrics.empty());
}

}  // namespace
}  // namespace sw
