// ROUGE of summaries (Lin 2004), as in google-research's rouge_score: words are runs of a-z and 0-9
// in lower case, without stemming.
#pragma once

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

}  // namespace sw
