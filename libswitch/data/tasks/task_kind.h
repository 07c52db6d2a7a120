// What there is to know of a named task: how its files are read, cast to text, and judged.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "libswitch/data/tasks/raw_record.h"
#include "libswitch/data/tasks/task.h"

namespace sw {

/// What an answer is held against, beside the pair's target.
struct Reference {
  int32_t label = 0;                 // class; for WSC whether the referent is the right one
  std::vector<std::string> answers;  // question answering: every one of them is right
  std::string group;                 // examples of one question (MultiRC) or query (ReCoRD)
};

/// Examples in the order of their file, one reference a pair.
struct Examples {
  std::vector<TextPair> pairs;
  std::vector<Reference> references;
  std::vector<std::string> ids;         // of the pairs' questions; empty text or no entries: none
  std::vector<std::string> unlabelled;  // where the first examples without a label stand
  int64_t unlabelled_count = 0;

  void add(std::string input, std::string target, Reference reference = {});
  /// An example of test data: its target reads <unk>, as with the T5 authors.
  void add_unlabelled(std::string input, const std::string& place, Reference reference = {});
};

/// A column of a task's official table (tab-separated, quotes are plain characters).
struct TableColumn {
  const char* field;        // of the record it becomes
  const char* header;       // its name in the first line
  int without_header = -1;  // its place in files without such a line; -1: they have one
};

using Metrics = std::vector<std::pair<std::string, double>>;

struct TaskKind {
  const char* name;
  std::vector<const char*> aliases;
  const char* prefix;                 // what an input begins with
  std::vector<const char*> features;  // fields of the input, in its order
  std::vector<const char*> classes;   // names of labels, in the order of their integers
  std::vector<TableColumn> table;
  int64_t table_columns = 0;  // of a table without header
  std::pair<int64_t, int64_t> lengths;
  void (*cast)(const TaskKind&, const RawRecord&, Examples&);
  Metrics (*judge)(const TaskKind&, const Examples&, std::span<const std::string> answers,
                   AnswerSource source);
  const char* fields = nullptr;  // of its records, for messages; nullptr: features and label

  /// "boolq's examples have passage, question, label".
  std::string layout() const;
};

/// Every task there is, in the order in which help lists them.
const std::vector<TaskKind>& task_kinds();
/// Plain text-to-text, which has no name.
const TaskKind& plain_kind();
/// By name or alias, in any case, "-" for "_"; nullptr: none.
const TaskKind* find_task_kind(const std::string& name);

// Casts: one raw record to its examples (none, one or several).
void cast_plain(const TaskKind&, const RawRecord&, Examples&);
/// "<prefix> <feature>: <text> <feature>: <text> ..." and the class's name: the rule of GLUE.
void cast_features(const TaskKind&, const RawRecord&, Examples&);
void cast_stsb(const TaskKind&, const RawRecord&, Examples&);
void cast_multirc(const TaskKind&, const RawRecord&, Examples&);
void cast_record(const TaskKind&, const RawRecord&, Examples&);
void cast_wsc(const TaskKind&, const RawRecord&, Examples&);
void cast_dpr(const TaskKind&, const RawRecord&, Examples&);
void cast_squad(const TaskKind&, const RawRecord&, Examples&);
void cast_question(const TaskKind&, const RawRecord&, Examples&);
void cast_summary(const TaskKind&, const RawRecord&, Examples&);
void cast_winogrande(const TaskKind&, const RawRecord&, Examples&);
void cast_arc(const TaskKind&, const RawRecord&, Examples&);

// Judges: answers to metrics, in percent.
using Answers = std::span<const std::string>;
Metrics judge_equal_text(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_accuracy(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_matthews(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_f1_accuracy(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_class_f1_accuracy(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_stsb(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_multirc(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_record(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_wsc(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_squad(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_questions(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_trivia_qa(const TaskKind&, const Examples&, Answers, AnswerSource);
Metrics judge_summaries(const TaskKind&, const Examples&, Answers, AnswerSource);

}  // namespace sw
