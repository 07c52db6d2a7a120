// Exact match and F1 of answers in text, as in the evaluation programs of SQuAD and TriviaQA.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

/// Lower case; ASCII punctuation removed; the words a, an and the removed; white space collapsed
/// (SQuAD v1.1, Rajpurkar et al. 2016).
std::string normalize_squad(std::string_view answer);
/// The same but for punctuation, which turns into spaces, and counts quotation marks and the
/// grave and acute accent (TriviaQA, Joshi et al. 2017).
std::string normalize_trivia_qa(std::string_view answer);

struct AnswerScores {
  double exact_match = 0, f1 = 0;  // percent
};

/// Means over questions of the best of each question's references; all text already normalised.
/// F1 is that of words as a bag. A question without references scores 0.
AnswerScores answer_scores(std::span<const std::vector<std::string>> references,
                           std::span<const std::string> answers);

}  // namespace sw
