// ROUGE of summaries (Lin 2004), as in google-research's rouge_score: words are runs of a-z and 0-9
// in lower case, without stemming.
#pragma once

#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

/// Words as ROUGE counts them.
std::vector<std::string> rouge_words(std::string_view text);

/// F-measures in [0, 1]; 0 where one side has no words.
/// Of n-grams, each counted as often as both sides have it.
double rouge_n(std::string_view target, std::string_view prediction, int n);
/// Of the union of longest common subsequences between the sentences of the target and those of
/// the prediction, sentences being lines; no word counts more often than either side has it.
double rouge_lsum(std::string_view target, std::string_view prediction);

/// " . " ends a sentence: the T5 authors start a line after it.
std::string split_sentences(std::string_view summary);

/// The middle of a bootstrap, by which rouge_score sums up examples: of 1,000 draws with
/// replacement, each as large as the examples are many, the median of their means. The t5 library
/// draws anew each time; here draws are NumPy's after numpy.random.seed(0), so that figures repeat,
/// and the metrics of a task take theirs one after the other as the library's do.
class BootstrapMiddle {
 public:
  double operator()(std::span<const double> values);

 private:
  std::mt19937 generator_{0};
};

}  // namespace sw
