// From answers to the metrics of a task.
#include <algorithm>
#include <map>
#include <set>

#include "libswitch/base/log.h"
#include "libswitch/data/tasks/metrics/answers.h"
#include "libswitch/data/tasks/metrics/classification.h"
#include "libswitch/data/tasks/metrics/python_text.h"
#include "libswitch/data/tasks/metrics/rouge.h"
#include "libswitch/data/tasks/spelling.h"
#include "libswitch/data/tasks/task_kind.h"

namespace sw {
namespace {

struct Classes {
  std::vector<int32_t> targets, predictions;
};

// An answer is the class whose name it is, to the letter.
Classes classes_of(const TaskKind& kind, const Examples& examples, Answers answers) {
  Classes out;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto at = std::find(kind.classes.begin(), kind.classes.end(), answers[i]);
    out.targets.push_back(examples.references[i].label);
    out.predictions.push_back(
        at == kind.classes.end() ? kNoClass : static_cast<int32_t>(at - kind.classes.begin()));
  }
  return out;
}

using Normalize = std::string (*)(std::string_view);

Metrics judge_answers(std::vector<std::vector<std::string>> references, Answers answers,
                      Normalize normalize) {
  for (auto& of_question : references) {
    for (std::string& reference : of_question) reference = normalize(reference);
  }
  std::vector<std::string> normalized;
  for (const std::string& answer : answers) normalized.push_back(normalize(answer));
  const AnswerScores scores = answer_scores(references, normalized);
  return {{"em", scores.exact_match}, {"f1", scores.f1}};
}

std::vector<std::vector<std::string>> answers_of(const Examples& examples) {
  std::vector<std::vector<std::string>> out;
  for (const Reference& reference : examples.references) out.push_back(reference.answers);
  return out;
}

// Words that say nothing of who is meant.
const std::set<std::string>& determiners() {
  static const std::set<std::string> words{
      "a",    "an",   "few", "her",   "his",   "each", "every", "many",  "much",  "my",  "our",
      "some", "that", "the", "their", "these", "this", "those", "which", "whose", "your"};
  return words;
}

std::string without_determiners(const std::string& text) {
  std::string out;
  bool first = true;
  for (const std::string& word : split_at(python_lower(python_strip(text)), ' ')) {
    if (determiners().count(word) > 0) continue;
    out += (first ? "" : " ") + word;
    first = false;
  }
  return out;
}

// 1: the answer names the referent; 0: it names something else; kNoClass: it says nothing.
int32_t names_referent(const std::string& answer, const std::string& referent) {
  const std::string given = without_determiners(answer), wanted = without_determiners(referent);
  if (given.empty()) return kNoClass;
  // "Bob" is not "Bob's hat".
  if ((given.find('\'') == given.npos) != (wanted.find('\'') == wanted.npos)) return 0;
  const auto of_given = split_at(given, ' '), of_wanted = split_at(wanted, ' ');
  const std::set<std::string> g(of_given.begin(), of_given.end());
  const std::set<std::string> w(of_wanted.begin(), of_wanted.end());
  return std::includes(g.begin(), g.end(), w.begin(), w.end()) ||
         std::includes(w.begin(), w.end(), g.begin(), g.end());
}

}  // namespace

Metrics judge_equal_text(const TaskKind&, const Examples& examples, Answers answers, AnswerSource) {
  int64_t equal = 0;
  for (size_t i = 0; i < answers.size(); ++i) equal += answers[i] == examples.pairs[i].target;
  return {{"accuracy", 100.0 * static_cast<double>(equal) / static_cast<double>(answers.size())}};
}

Metrics judge_accuracy(const TaskKind& kind, const Examples& examples, Answers answers,
                       AnswerSource) {
  const Classes c = classes_of(kind, examples, answers);
  return {{"accuracy", accuracy(c.targets, c.predictions)}};
}

Metrics judge_matthews(const TaskKind& kind, const Examples& examples, Answers answers,
                       AnswerSource) {
  const Classes c = classes_of(kind, examples, answers);
  return {{"matthews_corrcoef", matthews_correlation(c.targets, c.predictions)}};
}

Metrics judge_f1_accuracy(const TaskKind& kind, const Examples& examples, Answers answers,
                          AnswerSource) {
  const Classes c = classes_of(kind, examples, answers);
  return {{"f1", binary_f1(c.targets, c.predictions)},
          {"accuracy", accuracy(c.targets, c.predictions)}};
}

Metrics judge_class_f1_accuracy(const TaskKind& kind, const Examples& examples, Answers answers,
                                AnswerSource) {
  const Classes c = classes_of(kind, examples, answers);
  const auto classes = static_cast<int32_t>(kind.classes.size());
  return {
      {fmt::format("mean_{}class_f1", classes), mean_class_f1(c.targets, c.predictions, classes)},
      {"accuracy", accuracy(c.targets, c.predictions)}};
}

Metrics judge_stsb(const TaskKind&, const Examples& examples, Answers answers, AnswerSource) {
  std::vector<double> targets, predictions;
  for (size_t i = 0; i < answers.size(); ++i) {
    targets.push_back(python_float(examples.pairs[i].target).value_or(-1));
    predictions.push_back(python_float(answers[i]).value_or(-1));
  }
  return {{"pearson_corrcoef", pearson_correlation(targets, predictions)},
          {"spearman_corrcoef", spearman_correlation(targets, predictions)}};
}

Metrics judge_multirc(const TaskKind& kind, const Examples& examples, Answers answers,
                      AnswerSource) {
  const Classes c = classes_of(kind, examples, answers);
  std::map<std::string, bool> all_right;  // per question
  for (size_t i = 0; i < answers.size(); ++i) {
    all_right.try_emplace(examples.references[i].group, true).first->second &=
        c.targets[i] == c.predictions[i];
  }
  const auto right =
      std::count_if(all_right.begin(), all_right.end(), [](const auto& q) { return q.second; });
  return {
      {"f1", binary_f1(c.targets, c.predictions)},
      {"exact_match", 100.0 * static_cast<double>(right) / static_cast<double>(all_right.size())}};
}

Metrics judge_record(const TaskKind&, const Examples& examples, Answers answers, AnswerSource) {
  // A query stands once for each of its answers; its first row is judged.
  std::set<std::string> seen;
  std::vector<std::vector<std::string>> references;
  std::vector<std::string> first_answers;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!seen.insert(examples.references[i].group).second) continue;
    references.push_back(examples.references[i].answers);
    first_answers.push_back(answers[i]);
  }
  return judge_answers(std::move(references), first_answers, normalize_squad);
}

Metrics judge_wsc(const TaskKind&, const Examples& examples, Answers answers, AnswerSource) {
  std::vector<int32_t> targets, predictions;
  for (size_t i = 0; i < answers.size(); ++i) {
    targets.push_back(examples.references[i].label);
    predictions.push_back(names_referent(answers[i], examples.pairs[i].target));
  }
  return {{"accuracy", accuracy(targets, predictions)}};
}

Metrics judge_squad(const TaskKind&, const Examples& examples, Answers answers,
                    AnswerSource source) {
  std::vector<std::vector<std::string>> references = answers_of(examples);
  if (source == AnswerSource::model || are_padded(answers)) {
    for (auto& of_question : references) {
      for (std::string& reference : of_question) reference = pad_punctuation(reference);
    }
  } else {
    log::info("squad: answers are in the spelling of the text, without spaces round punctuation");
  }
  return judge_answers(std::move(references), answers, normalize_squad);
}

Metrics judge_questions(const TaskKind&, const Examples& examples, Answers answers, AnswerSource) {
  return judge_answers(answers_of(examples), answers, normalize_squad);
}

Metrics judge_trivia_qa(const TaskKind&, const Examples& examples, Answers answers, AnswerSource) {
  return judge_answers(answers_of(examples), answers, normalize_trivia_qa);
}

Metrics judge_summaries(const TaskKind&, const Examples& examples, Answers answers, AnswerSource) {
  std::vector<double> rouge1, rouge2, lsum;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string target = split_sentences(examples.pairs[i].target);
    const std::string answer = split_sentences(answers[i]);
    rouge1.push_back(rouge_n(target, answer, 1));
    rouge2.push_back(rouge_n(target, answer, 2));
    lsum.push_back(rouge_lsum(target, answer));
  }
  BootstrapMiddle middle;
  Metrics out;
  out.emplace_back("rouge1", 100 * middle(rouge1));
  out.emplace_back("rouge2", 100 * middle(rouge2));
  out.emplace_back("rougeLsum", 100 * middle(lsum));
  return out;
}

}  // namespace sw
