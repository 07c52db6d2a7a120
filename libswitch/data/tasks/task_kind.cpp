#include "libswitch/data/tasks/task_kind.h"

#include <algorithm>

namespace sw {
namespace {

// Lengths of inputs and targets with the T5 authors, and for pairs of text; where the authors have
// none, those of SuperGLUE.
constexpr std::pair<int64_t, int64_t> kGlueLengths{512, 84}, kSuperGlueLengths{512, 62},
    kSquadLengths{512, 97}, kSummaryLengths{512, 512}, kPairLengths{512, 128};

const std::vector<const char*> kEntailment{"entailment", "not_entailment"},
    kThreeWays{"entailment", "neutral", "contradiction"}, kTruth{"False", "True"};

std::vector<TaskKind> make_kinds() {
  // name, aliases, prefix, features, classes,
  //   columns of the official table, columns without header, lengths, cast, judge, fields
  // clang-format off
  return {
      // GLUE (Wang et al. 2019a)
      {"cola", {}, "cola", {"sentence"}, {"unacceptable", "acceptable"},
       {{"sentence", "sentence", 3}, {"label", "label", 1}}, 4,
       kGlueLengths, cast_features, judge_matthews},
      {"sst2", {"sst_2"}, "sst2", {"sentence"}, {"negative", "positive"},
       {{"sentence", "sentence"}, {"label", "label"}}, 0,
       kGlueLengths, cast_features, judge_accuracy},
      {"mrpc", {}, "mrpc", {"sentence1", "sentence2"}, {"not_equivalent", "equivalent"},
       {{"sentence1", "#1 String"}, {"sentence2", "#2 String"}, {"label", "Quality"}}, 0,
       kGlueLengths, cast_features, judge_f1_accuracy},
      {"qqp", {}, "qqp", {"question1", "question2"}, {"not_duplicate", "duplicate"},
       {{"question1", "question1"}, {"question2", "question2"}, {"label", "is_duplicate"}}, 0,
       kGlueLengths, cast_features, judge_f1_accuracy},
      {"stsb", {"sts_b"}, "stsb", {}, {},
       {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}, {"label", "score"}}, 0,
       kGlueLengths, cast_stsb, judge_stsb, "sentence1, sentence2, label"},
      {"mnli", {"mnli_matched", "mnli_mismatched", "ax"}, "mnli", {"hypothesis", "premise"}, kThreeWays,
       {{"hypothesis", "sentence2"}, {"premise", "sentence1"}, {"label", "gold_label"}}, 0,
       kGlueLengths, cast_features, judge_accuracy},
      {"qnli", {}, "qnli", {"question", "sentence"}, kEntailment,
       {{"question", "question"}, {"sentence", "sentence"}, {"label", "label"}}, 0,
       kGlueLengths, cast_features, judge_accuracy},
      {"rte", {}, "rte", {"sentence1", "sentence2"}, kEntailment,
       {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}, {"label", "label"}}, 0,
       kGlueLengths, cast_features, judge_accuracy},

      // SuperGLUE (Wang et al. 2019b), and DPR, which T5 trains on with WSC
      {"boolq", {}, "boolq", {"passage", "question"}, kTruth, {}, 0,
       kSuperGlueLengths, cast_features, judge_accuracy},
      {"cb", {}, "cb", {"hypothesis", "premise"}, {"entailment", "contradiction", "neutral"}, {}, 0,
       kSuperGlueLengths, cast_features, judge_class_f1_accuracy},
      {"copa", {}, "copa", {"choice1", "choice2", "premise", "question"}, {"choice1", "choice2"}, {}, 0,
       kSuperGlueLengths, cast_features, judge_accuracy},
      {"multirc", {}, "multirc", {"question", "answer", "paragraph"}, kTruth, {}, 0,
       kSuperGlueLengths, cast_multirc, judge_multirc},
      {"record", {}, "record", {}, {}, {}, 0,
       kSuperGlueLengths, cast_record, judge_record, "passage, query, entities, answers"},
      {"super_glue_rte", {"superglue_rte", "sg_rte", "axb", "axg"}, "rte", {"hypothesis", "premise"},
       kEntailment, {}, 0,
       kSuperGlueLengths, cast_features, judge_accuracy},
      {"wic", {}, "wic", {"sentence1", "sentence2", "word"}, kTruth, {}, 0,
       kSuperGlueLengths, cast_features, judge_accuracy},
      {"wsc", {"wsc_fixed", "wsc.fixed"}, "wsc:", {}, kTruth, {}, 0,
       kSuperGlueLengths, cast_wsc, judge_wsc,
       "text, span1_text, span1_index, span2_text, span2_index, label"},
      {"dpr", {"definite_pronoun_resolution"}, "wsc:", {}, {}, {}, 0,
       kSuperGlueLengths, cast_dpr, judge_equal_text, "sentence, pronoun, candidates, label"},

      // Reading, and recalling
      {"squad", {"squad_v1", "squad_v1.1"}, "question:", {}, {}, {}, 0,
       kSquadLengths, cast_squad, judge_squad, "context, question, answers"},
      {"nq", {"nq_open", "natural_questions", "natural_questions_open"}, "nq question:", {}, {}, {}, 0,
       kSuperGlueLengths, cast_question, judge_questions, "question, answers"},
      {"webquestions", {"web_questions", "webq", "wq"}, "wq question:", {}, {}, {}, 0,
       kSuperGlueLengths, cast_question, judge_questions, "question, answers"},
      {"triviaqa", {"trivia_qa", "tqa"}, "trivia_qa question:", {}, {}, {}, 0,
       kSuperGlueLengths, cast_question, judge_trivia_qa, "question, answers"},

      // Summaries
      {"cnn_dailymail", {"cnndm", "cnn_dm"}, "summarize:", {"article", "highlights"}, {}, {}, 0,
       kSummaryLengths, cast_summary, judge_summaries, "article, highlights"},
      {"xsum", {}, "summarize:", {"document", "summary"}, {}, {}, 0,
       kSummaryLengths, cast_summary, judge_summaries, "document, summary"},

      // Reasoning; their casts are ours, the authors released none.
      {"anli", {"anli_r1", "anli_r2", "anli_r3"}, "anli", {"hypothesis", "premise"}, kThreeWays, {}, 0,
       kSuperGlueLengths, cast_features, judge_accuracy},
      {"winogrande", {"winogrande_xl"}, "winogrande sentence:", {}, {}, {}, 0,
       kSuperGlueLengths, cast_winogrande, judge_equal_text, "sentence, option1, option2, answer"},
      {"arc_easy", {"arc_e"}, "arc question:", {}, {}, {}, 0,
       kSuperGlueLengths, cast_arc, judge_equal_text, "question, choices, answerKey"},
      {"arc_challenge", {"arc_c"}, "arc question:", {}, {}, {}, 0,
       kSuperGlueLengths, cast_arc, judge_equal_text, "question, choices, answerKey"},
  };
  // clang-format on
}

std::string canonical(std::string name) {
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    if (c == '-' || c == ' ') c = '_';
  }
  return name;
}

}  // namespace

std::string TaskKind::layout() const {
  std::string list = fields != nullptr ? fields : "";
  if (fields == nullptr) {
    for (const char* feature : features) list += std::string(feature) + ", ";
    list += "label";
  }
  return (*name == '\0' ? "pairs of text have " : name + std::string("'s examples have ")) + list;
}

const std::vector<TaskKind>& task_kinds() {
  static const std::vector<TaskKind> kinds = make_kinds();
  return kinds;
}

const TaskKind& plain_kind() {
  // clang-format off
  static const TaskKind kind{
      "", {}, "", {}, {}, {{"input", "input", 0}, {"target", "target", 1}}, 2,
      kPairLengths, cast_plain, judge_equal_text, "input, target"};
  // clang-format on
  return kind;
}

const TaskKind* find_task_kind(const std::string& name) {
  const auto find = [](const std::string& wanted) -> const TaskKind* {
    for (const TaskKind& kind : task_kinds()) {
      if (wanted == kind.name || std::count(kind.aliases.begin(), kind.aliases.end(), wanted) > 0) {
        return &kind;
      }
    }
    return nullptr;
  };
  const std::string wanted = canonical(name);
  if (const TaskKind* kind = find(wanted)) return kind;
  // "glue_cola", "super_glue_boolq", as the t5 library has it.
  for (const std::string prefix : {"super_glue_", "superglue_", "glue_"}) {
    if (wanted.starts_with(prefix)) return find(wanted.substr(prefix.size()));
  }
  return nullptr;
}

}  // namespace sw
