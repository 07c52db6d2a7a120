#include "libswitch/data/tasks/metrics/rouge.h"

#include <algorithm>
#include <bit>
#include <map>

#include "libswitch/data/tasks/metrics/python_text.h"

namespace sw {
namespace {

using Words = std::vector<std::string>;

double f_measure(int64_t hits, int64_t of_target, int64_t of_prediction) {
  const double precision =
      static_cast<double>(hits) / static_cast<double>(std::max<int64_t>(of_prediction, 1));
  const double recall =
      static_cast<double>(hits) / static_cast<double>(std::max<int64_t>(of_target, 1));
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

int64_t ngram_count(const Words& words, int n) {
  return std::max<int64_t>(static_cast<int64_t>(words.size()) - n + 1, 0);
}

std::map<std::string, int64_t> ngrams(const Words& words, int n) {
  std::map<std::string, int64_t> out;
  for (int64_t i = 0; i < ngram_count(words, n); ++i) {
    std::string ngram;
    for (int64_t j = i; j < i + n; ++j) ngram += words[static_cast<size_t>(j)] + " ";
    ++out[ngram];
  }
  return out;
}

std::vector<Words> sentences(std::string_view text) {
  std::vector<Words> out;
  for (const std::string& line : split_at(text, '\n')) {
    if (!line.empty()) out.push_back(rouge_words(line));
  }
  return out;
}

// Marks the words of `target` that are in one longest common subsequence with `prediction`: of
// several, the one that the reference program walks back along.
void mark_common(const Words& target, const Words& prediction, std::vector<bool>& marked) {
  enum : uint8_t { up, left, both };
  const size_t columns = prediction.size();
  std::vector<uint8_t> way(target.size() * columns);
  std::vector<int32_t> row(columns + 1, 0), above;  // lengths; the first column is 0
  for (size_t i = 0; i < target.size(); ++i) {
    above = row;
    for (size_t j = 0; j < columns; ++j) {
      const bool equal = target[i] == prediction[j];
      row[j + 1] = equal ? above[j] + 1 : std::max(above[j + 1], row[j]);
      way[i * columns + j] = equal ? both : row[j] > above[j + 1] ? left : up;
    }
  }
  for (size_t i = target.size(), j = columns; i > 0 && j > 0;) {
    const uint8_t step = way[(i - 1) * columns + j - 1];
    if (step == both) marked[i - 1] = true;
    if (step != left) --i;
    if (step != up) --j;
  }
}

}  // namespace

std::vector<std::string> rouge_words(std::string_view text) {
  Words words;
  std::string word;
  for (const char c : python_lower(text)) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

double rouge_n(std::string_view target, std::string_view prediction, int n) {
  const Words of_target = rouge_words(target), of_prediction = rouge_words(prediction);
  const auto in_prediction = ngrams(of_prediction, n);
  int64_t hits = 0;
  for (const auto& [ngram, count] : ngrams(of_target, n)) {
    if (const auto it = in_prediction.find(ngram); it != in_prediction.end()) {
      hits += std::min(count, it->second);
    }
  }
  return f_measure(hits, ngram_count(of_target, n), ngram_count(of_prediction, n));
}

double rouge_lsum(std::string_view target, std::string_view prediction) {
  const auto of_target = sentences(target), of_prediction = sentences(prediction);
  std::map<std::string, int64_t> left_in_target, left_in_prediction;
  int64_t target_words = 0, prediction_words = 0;
  for (const Words& sentence : of_target) {
    for (const std::string& word : sentence) ++left_in_target[word], ++target_words;
  }
  for (const Words& sentence : of_prediction) {
    for (const std::string& word : sentence) ++left_in_prediction[word], ++prediction_words;
  }
  if (target_words == 0 || prediction_words == 0) return 0;
  int64_t hits = 0;
  for (const Words& sentence : of_target) {
    std::vector<bool> marked(sentence.size(), false);
    for (const Words& other : of_prediction) mark_common(sentence, other, marked);
    for (size_t i = 0; i < sentence.size(); ++i) {
      if (!marked[i]) continue;
      int64_t& in_prediction = left_in_prediction[sentence[i]];
      int64_t& in_target = left_in_target[sentence[i]];
      if (in_prediction > 0 && in_target > 0) ++hits, --in_prediction, --in_target;
    }
  }
  return f_measure(hits, target_words, prediction_words);
}

double BootstrapMiddle::operator()(std::span<const double> values) {
  constexpr size_t kDraws = 1000;
  if (values.empty()) return 0;
  // numpy.random.choice: words masked to as many bits as the largest index has, until one fits.
  const auto last = static_cast<uint32_t>(values.size() - 1);
  const uint32_t mask = last == 0 ? 0 : ~uint32_t{0} >> std::countl_zero(last);
  std::vector<double> means(kDraws);
  for (double& mean : means) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t index = 0;
      while (last > 0 && (index = generator_() & mask) > last) {
      }
      sum += values[index];
    }
    mean = sum / static_cast<double>(values.size());
  }
  std::sort(means.begin(), means.end());
  return (means[kDraws / 2 - 1] + means[kDraws / 2]) / 2;
}

std::string split_sentences(std::string_view summary) {
  std::string out;
  size_t begin = 0;
  for (size_t at; (at = summary.find(" . ", begin)) != summary.npos; begin = at + 3) {
    out.append(summary, begin, at - begin);
    out += " .\n";
  }
  out.append(summary, begin);
  return out;
}

}  // namespace sw
