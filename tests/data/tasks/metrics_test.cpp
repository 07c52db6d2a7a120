// Metrics against the numbers of their authors' own tests, and against Python on text that is hard.
#include <gtest/gtest.h>

#include "libswitch/data/tasks/metrics/answers.h"
#include "libswitch/data/tasks/metrics/classification.h"
#include "libswitch/data/tasks/metrics/python_text.h"
#include "libswitch/data/tasks/metrics/rouge.h"
#include "libswitch/data/tasks/spelling.h"

namespace sw {
namespace {

using Classes = std::vector<int32_t>;
using Texts = std::vector<std::string>;
using References = std::vector<Texts>;

AnswerScores scores(std::string (*normalize)(std::string_view), References references,
                    Texts answers) {
  for (Texts& texts : references) {
    for (std::string& text : texts) text = normalize(text);
  }
  for (std::string& text : answers) text = normalize(text);
  return answer_scores(references, answers);
}

// google-research/text-to-text-transfer-transformer, t5/evaluation/metrics_test.py and
// qa_utils_test.py (Apache-2.0).
TEST(Metrics, OfAnswersAreThoseOfTheT5Library) {
  const References references{
      {"big moose", "hippo"}, {"correct1"}, {"correct2.1", "correct2.2"}, {"a", "b"}};
  const Texts answers{"‘a big  Moose!‘", "wrong", "correct2.2", "c"};
  AnswerScores s = scores(normalize_squad, references, answers);
  EXPECT_EQ(s.exact_match, 25);
  EXPECT_NEAR(s.f1, 35, 1e-9);
  s = scores(normalize_trivia_qa, references, answers);
  EXPECT_EQ(s.exact_match, 50);
  EXPECT_EQ(s.f1, 50);
  s = scores(normalize_squad, {{"abc abd", "$$$$"}}, {"abd"});
  EXPECT_EQ(s.exact_match, 0);
  EXPECT_NEAR(s.f1, 200.0 / 3, 1e-9);
  s = scores(normalize_squad, {{"", "this is a string"}, {"this is a string"}},
             {"this is a string", "this is a string"});
  EXPECT_EQ(s.exact_match, 100);
  EXPECT_EQ(s.f1, 100);
  s = scores(normalize_squad, {{"this is a string"}, {"this is a string"}}, {"", ""});
  EXPECT_EQ(s.exact_match, 0);
  EXPECT_EQ(s.f1, 0);
  const std::string hard = "`Needs\tA_LOT of the 'normalization'.\"‘";
  EXPECT_EQ(normalize_trivia_qa(hard), "needs lot of normalization");
  EXPECT_EQ(normalize_squad(hard), "needs alot of normalization‘");
}

TEST(Metrics, OfClassesAndNumbersAreThoseOfTheT5Library) {
  EXPECT_EQ(accuracy(Classes{0, 0, 2, 1}, Classes{0, 1, 2, 1}), 75);
  EXPECT_NEAR(mean_class_f1(Classes{0, 1, 1, 2}, Classes{0, 0, 2, 2}, 3), 400.0 / 9, 1e-9);
  EXPECT_EQ(binary_f1(Classes{0, 1, 1, 0}, Classes{0, 1, 2, 2}), 50);
  EXPECT_EQ(binary_f1(Classes{1, 1, 0}, Classes{1, 0, 1}), 50);
  EXPECT_NEAR(matthews_correlation(Classes{0, 0, 2, 1}, Classes{0, 1, 2, 1}), 70, 1e-9);
  EXPECT_NEAR(pearson_correlation(std::vector<double>{0, 2}, std::vector<double>{0, 1}), 100, 1e-9);
  EXPECT_NEAR(spearman_correlation(std::vector<double>{0, 2, 1}, std::vector<double>{0, 1, 2}), 50,
              1e-9);
}

TEST(Metrics, UndefinedOnesAreZero) {
  EXPECT_EQ(binary_f1(Classes{0, 0}, Classes{0, 0}), 0);
  EXPECT_EQ(matthews_correlation(Classes{1, 1}, Classes{1, 0}), 0);
  EXPECT_EQ(pearson_correlation(std::vector<double>{1, 2, 3}, std::vector<double>{-1, -1, -1}), 0);
  EXPECT_EQ(pearson_correlation(std::vector<double>{0.1, 0.1, 0.1}, std::vector<double>{1, 2, 3}),
            0);
  EXPECT_EQ(spearman_correlation(std::vector<double>{1}, std::vector<double>{1}), 0);
}

TEST(Metrics, SpearmanSharesRanksOfTies) {
  // scipy.stats.spearmanr([1, 2, 2, 4, 5], [3, 1, 1, 4, 4])
  EXPECT_NEAR(
      spearman_correlation(std::vector<double>{1, 2, 2, 4, 5}, std::vector<double>{3, 1, 1, 4, 4}),
      64.88856845230502, 1e-9);
}

// google-research/google-research, rouge/rouge_scorer_test.py (Apache-2.0); from ROUGE-1.5.5.
TEST(Rouge, IsThatOfItsReferenceProgram) {
  EXPECT_EQ(rouge_n("testing one two", "testing", 1), 0.5);
  EXPECT_NEAR(rouge_n("testing one two", "testing one", 2), 2.0 / 3, 1e-9);
  EXPECT_NEAR(rouge_n("testing one two", "testing one", 1), 0.8, 1e-9);
  EXPECT_NEAR(rouge_lsum("testing one two", "testing two"), 0.8, 1e-9);
  EXPECT_EQ(rouge_n("testing one two", "", 1), 0);
  EXPECT_EQ(rouge_lsum("testing one two", ""), 0);
  EXPECT_NEAR(rouge_lsum("w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"), 0.53333, 1e-5);
  EXPECT_EQ(rouge_lsum("w1 w2 w3 w4 w5", "/"), 0);
  EXPECT_EQ(rouge_lsum("", "w1"), 0);
}

TEST(Rouge, WordsAreAsciiLettersAndDigits) {
  EXPECT_EQ(rouge_words("Don't; naïve 3.5%"), (Texts{"don", "t", "na", "ve", "3", "5"}));
  EXPECT_EQ(rouge_words("\u212Aelvin \u0130ce"), (Texts{"kelvin", "i", "ce"}));
  EXPECT_EQ(split_sentences("a . b . . c .d . "), "a .\nb .\n. c .d .\n");
}

TEST(PythonText, LowersAsPythonDoes) {
  EXPECT_EQ(python_lower("ÀÉ Straße ẞ Ǆ Ꭰ 𐐀"), "àé straße ß ǆ ꭰ 𐐨");
  EXPECT_EQ(python_lower("İ"), "i\u0307");
  EXPECT_EQ(python_lower("ΣΊΣΥΦΟΣ"), "σίσυφος");
  EXPECT_EQ(python_lower("Σ ΑΣ. ΑΣ.Α ΑΣ\u200bΑ"), "σ ας. ασ.α ασ\u200bα");
}

TEST(PythonText, SplitsAtUnicodeSpace) {
  EXPECT_EQ(python_split("\u00a0a\u2003b\x1f c\u3000\u200bd "), (Texts{"a", "b", "c", "\u200bd"}));
  EXPECT_EQ(python_strip("\u2028 a b\u0085"), "a b");
  EXPECT_EQ(split_at("a  b ", ' '), (Texts{"a", "", "b", ""}));
}

TEST(PythonText, ReadsNumbersAsPythonDoes) {
  for (const char* text : {" 2.5\u00a0", "+2.5", "2_5e-1", "2.5e0", "25e-1"}) {
    EXPECT_EQ(python_float(text), 2.5) << text;
  }
  EXPECT_EQ(python_float(".5"), 0.5);
  EXPECT_EQ(python_float("5."), 5.0);
  for (const char* text :
       {"", "five", "2_", "_2", "2__5", "+-2", "0x10", "1 2", "2.5x", "nan", "inf", "--1"}) {
    EXPECT_FALSE(python_float(text).has_value()) << text;
  }
}

TEST(Answers, ArticlesAreWholeWordsOfUnicode) {
  EXPECT_EQ(normalize_squad("The—a café, an aé a東 a\u0301 x_the_y"), "— café aé a東 \u0301 xthey");
}

TEST(Spelling, PunctuationStandsAlone) {
  EXPECT_EQ(pad_punctuation("US$3 (p.\n4) naïve—x"), "US $ 3 ( p . 4 ) naïve—x");
  EXPECT_TRUE(are_padded(Texts{"it ' s", "plain", "$ 3"}));
  EXPECT_FALSE(are_padded(Texts{"it's", "plain", "$3", "x . y"}));
}

}  // namespace
}  // namespace sw
