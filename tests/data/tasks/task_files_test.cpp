// The public forms of tasks' files beside JSON lines with the fields of TensorFlow Datasets.
#include <gmock/gmock.h>

#include "libswitch/data/tasks/answers_file.h"
#include "libswitch/data/tasks/task.h"
#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using ::testing::AllOf;
using testing::DataTest;
using testing::error_of;
using ::testing::HasSubstr;

class TaskFiles : public DataTest {
 protected:
  std::unique_ptr<Task> open(const std::string& name, std::string_view content) {
    return Task::open((name.empty() ? "" : name + ":") + write("file", content).string());
  }
  // "input -> target" of every pair.
  std::vector<std::string> cast(const std::string& name, std::string_view content) {
    std::vector<std::string> out;
    const auto task = open(name, content);
    for (const TextPair& pair : task->pairs()) {
      out.push_back(pair.input + " -> " + pair.target);
    }
    return out;
  }
  std::string refusal(const std::string& name, std::string_view content) {
    return error_of(ErrorKind::corrupt, [&] { open(name, content); });
  }
};
using Pairs = std::vector<std::string>;

TEST_F(TaskFiles, TablesOfGlueHaveTheirColumnsAndNoQuotes) {
  EXPECT_EQ(cast("cola", "gj04\t1\t\tHe said \"no.\ngj04\t0\t*\tThe \"more\" it.\n"),
            (Pairs{"cola sentence: He said \"no. -> acceptable",
                   "cola sentence: The \"more\" it. -> unacceptable"}));
  EXPECT_EQ(cast("cola", "index\tsentence\n0\tBill slept.\n"),
            (Pairs{"cola sentence: Bill slept. -> <unk>"}));
  EXPECT_EQ(cast("sst-2", "sentence\tlabel\r\ngood  \t1\r\n"),
            (Pairs{"sst2 sentence: good   -> positive"}));
  EXPECT_EQ(cast("mrpc",
                 "\xEF\xBB\xBFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
                 "1\t7\t8\tOne.\tTwo.\n"),
            (Pairs{"mrpc sentence1: One. sentence2: Two. -> equivalent"}));
  EXPECT_EQ(cast("qqp", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tA?\tB?\t0\n"),
            (Pairs{"qqp question1: A? question2: B? -> not_duplicate"}));
  EXPECT_EQ(cast("stsb",
                 "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\t"
                 "score\n0\tg\tf\t2012\t1\tn\tn\tA.\tB.\t2.500\n"),
            (Pairs{"stsb sentence1: A. sentence2: B. -> 2.4"}));  // halves to even
  EXPECT_EQ(cast("mnli",
                 "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
                 "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
                 "0\t1\t1n\tg\tp\tp\tp\tp\tP.\tH.\tneutral\tcontradiction\n"),
            (Pairs{"mnli hypothesis: H. premise: P. -> contradiction"}));
  EXPECT_EQ(cast("qnli", "index\tquestion\tsentence\tlabel\n0\tQ?\tS.\tnot_entailment\n"),
            (Pairs{"qnli question: Q? sentence: S. -> not_entailment"}));
  EXPECT_EQ(cast("rte", "index\tsentence1\tsentence2\n0\tA\tB\n"),
            (Pairs{"rte sentence1: A sentence2: B -> <unk>"}));
}

TEST_F(TaskFiles, RowsOfTheWrongWidthAreRefusedButForTheFewOfQqp) {
  EXPECT_THAT(refusal("sst2", "sentence\tlabel\ngood\t1\nbad\n"),
              HasSubstr(":3: 1 column(s), expected 2 separated by tabs"));
  EXPECT_THAT(refusal("cola", "gj04\t1\t*\n"), HasSubstr(":1: 3 column(s), expected 4"));
  std::string qqp = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tcut\n";
  EXPECT_THAT(refusal("qqp", qqp), HasSubstr(":2: 4 column(s), expected 6"));
  for (int i = 0; i < 1001; ++i) qqp += "5\t1\t2\tA?\tB?\t0\n";
  EXPECT_EQ(cast("qqp", qqp).size(), 1001U);
}

TEST_F(TaskFiles, LabelsAreIntegersOrNames) {
  const Pairs want{"boolq passage: P question: q -> True"};
  for (const char* label : {"1", "true", "\"True\"", "\"true\"", "\"1\"", "1.0"}) {
    const std::string row = R"({"question": "q", "passage": "P", "title": "t", "label": )";
    EXPECT_EQ(cast("boolq", row + label + "}"), want) << label;
  }
  EXPECT_EQ(cast("boolq", R"({"question": "q", "passage": "P", "answer": true})"), want);
  EXPECT_EQ(cast("anli", R"({"context": "c", "hypothesis": "h", "label": "n"})"),
            (Pairs{"anli hypothesis: h premise: c -> neutral"}));
  EXPECT_THAT(
      refusal("cb", R"({"premise": "p", "hypothesis": "h", "label": "neutrale"})"),
      HasSubstr(R"(:1: field "label" is "neutrale", expected 0 entailment, 1 contradiction, )"
                "2 neutral, or -1 where there is none; did you mean 'neutral'?"));
  EXPECT_THAT(refusal("stsb", R"({"sentence1": "p", "sentence2": "h", "label": 5.5})"),
              HasSubstr("is 5.5, expected a similarity from 0 to 5"));
}

TEST_F(TaskFiles, UnlabelledExamplesAreCastButNotJudged) {
  const auto task = open("cola",
                         "{\"sentence\": \"a\", \"label\": 1}\n"
                         "{\"sentence\": \"b\", \"label\": -1}\n");
  EXPECT_EQ(task->pairs()[1].target, "<unk>");
  const std::vector<std::string> answers{"acceptable", "acceptable"};
  EXPECT_THAT(
      error_of(ErrorKind::corrupt, [&] { task->metrics(answers); }),
      HasSubstr("1 of 2 examples have no label or answer, so that answers cannot be judged; "
                "the first at"));
  error_of(ErrorKind::corrupt, [&] { task->training_pairs(); });
  EXPECT_FALSE(task->labelled());
  error_of(ErrorKind::corrupt, [&] { task->check_judgeable(); });
  const auto labelled = open("cola", R"({"sentence": "a", "label": 1})");
  EXPECT_TRUE(labelled->labelled());
  labelled->check_judgeable();
}

TEST_F(TaskFiles, TestFilesHaveNoLabelAtAll) {
  for (const auto& [name, record, want] : std::vector<std::array<std::string, 3>>{
           {"boolq", R"({"question": "q", "passage": "p", "idx": 0})",
            "boolq passage: p question: q -> <unk>"},
           {"cb", R"({"premise": "p", "hypothesis": "h", "idx": 0})",
            "cb hypothesis: h premise: p -> <unk>"},
           {"multirc",
            R"({"idx": 0, "passage": {"text": "P.", "questions": [{"question": "q?", "idx": 0,)"
            R"( "answers": [{"text": "x", "idx": 0}]}]}})",
            "multirc question: q? answer: x paragraph: P. -> <unk>"},
           {"record",
            R"({"passage": "P.", "query": "@placeholder", "entities": ["A", "B"], "idx": 0})",
            "record query: @placeholder entities: A, B passage: P. -> <unk>"},
           // The referent is part of the question.
           {"wsc",
            R"({"text": "Cats ran. They left", "idx": 0, "target": {"span1_index": 0,)"
            R"( "span1_text": "Cats", "span2_index": 2, "span2_text": "They"}})",
            "wsc: Cats ran. *They* left -> Cats"},
           {"stsb", R"({"sentence1": "a", "sentence2": "b", "idx": 0})",
            "stsb sentence1: a sentence2: b -> <unk>"},
           {"winogrande", R"({"sentence": "a _", "option1": "x", "option2": "y"})",
            "winogrande sentence: a _ choice1: x choice2: y -> <unk>"}}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(cast(name, record), (Pairs{want}));
    const auto task = open(name, record);
    EXPECT_FALSE(task->labelled());
    EXPECT_THAT(error_of(ErrorKind::corrupt, [&] { task->training_pairs(); }),
                AllOf(HasSubstr("cannot be trained on; the first at "), HasSubstr(":1"),
                      HasSubstr(name + "'s examples have ")));
  }
}

TEST_F(TaskFiles, ALabelThatIsLostByASlipIsRefused) {
  const std::string row = R"({"question": "q", "passage": "p")";
  for (const char* slip : {"lable", "Label", "labels", "labl", "anwser", "Answers"}) {
    EXPECT_THAT(
        refusal("boolq", row + ", \"" + slip + "\": 1}"),
        AllOf(HasSubstr(":1: no field \""), HasSubstr(std::string("but \"") + slip + "\";")));
  }
  EXPECT_THAT(
      refusal("winogrande", R"({"sentence": "_", "option1": "x", "option2": "y", "anser": "1"})"),
      HasSubstr("no field \"answer\", but \"anser\""));
  EXPECT_THAT(refusal("multirc",
                      R"({"passage": {"text": "P.", "questions": [{"question": "q?", "answers": [)"
                      R"({"text": "x", "label": 1}, {"text": "y", "Label": 0}]}]}})"),
              HasSubstr("answers[1]: no field \"label\", but \"Label\""));
  EXPECT_THAT(refusal("sst2", "sentence\tlabels\ngood\t1\n"),
              HasSubstr(":1: no column \"label\", but \"labels\""));
  // Fields that public copies have are none.
  for (const char* other : {"idx", "title", "level", "table", "genre", "tag"}) {
    EXPECT_EQ(cast("boolq", row + ", \"" + other + "\": 1}").size(), 1U) << other;
  }
}

TEST_F(TaskFiles, AllExamplesHaveTheFieldOfALabelOrNone) {
  const std::string with = "{\"sentence\": \"a\", \"label\": 0}\n",
                    without = "{\"sentence\": \"b\"}\n";
  EXPECT_THAT(
      refusal("cola", with + with + without),
      AllOf(HasSubstr("file:3: no field \"label\", but "), HasSubstr("file:1 has a label")));
  EXPECT_THAT(
      refusal("cola", without + without + with),
      AllOf(HasSubstr("file:1: no field \"label\", but "), HasSubstr("file:3 has a label")));
  EXPECT_EQ(
      open("cola", without + without)->unlabelled_note(),
      path("file").string() +
          ": none of 2 examples has a label or answer (cola's examples have sentence, label)");
  // To say that there is none is another matter.
  for (const char* none : {"-1", "null", "\"-\""}) {
    const auto task = open("cola", with + "{\"sentence\": \"b\", \"label\": " + none + "}\n");
    EXPECT_THAT(task->unlabelled_note(), HasSubstr(": 1 of 2 examples have no label or answer ("))
        << none;
  }
  EXPECT_EQ(cast("mnli", R"({"gold_label": "neutral", "sentence1": "p", "sentence2": "h"})"),
            (Pairs{"mnli hypothesis: h premise: p -> neutral"}));
}

TEST_F(TaskFiles, APronounsIndexMayBeAnyInteger) {
  for (const std::string index : {"-9223372036854775808", "-1", "99", "9223372036854775807"}) {
    EXPECT_EQ(cast("wsc", R"({"text": "they ran, they left", "span1_text": "x", "span1_index": )" +
                              index + R"(, "span2_text": "they", "span2_index": )" + index +
                              R"(, "label": 1})"),
              (Pairs{index[0] == '-' ? "wsc: *they* ran, they left -> x"
                                     : "wsc: they ran, *they* left -> x"}));
  }
}

TEST_F(TaskFiles, NestedJsonLinesOfSuperGlue) {
  const std::string multirc =
      R"({"idx": 3, "passage": {"text": "<b>S1: </b>A.<br>", "questions": [)"
      R"({"question": "q?", "idx": 7, "answers": [{"text": "x", "idx": 0, "label": 1},)"
      R"({"text": "y", "idx": 1, "label": 0}]},)"
      R"({"question": "r?", "idx": 8, "answers": [{"text": "z", "idx": 2, "label": 1}]}]}})";
  EXPECT_EQ(cast("multirc", multirc),
            (Pairs{"multirc question: q? answer: x paragraph: S1: A.  -> True",
                   "multirc question: q? answer: y paragraph: S1: A.  -> False",
                   "multirc question: r? answer: z paragraph: S1: A.  -> True"}));
  const auto metrics =
      open("multirc", multirc)->metrics(std::vector<std::string>{"True", "True", "True"});
  EXPECT_EQ(metrics[1].first, "exact_match");
  EXPECT_EQ(metrics[1].second, 50);
  // Spans count characters, their last included; entities and answers are sorted and each once.
  EXPECT_EQ(
      cast("record", R"({"idx": 0, "passage": {"text": "Zoë, Mara\n@highlight\nZoë",)"
                     R"( "entities": [{"start": 5, "end": 8}, {"start": 0, "end": 2},)"
                     R"( {"start": 21, "end": 23}]}, "qas": [{"query": "@placeholder",)"
                     R"( "idx": 0, "answers": [{"start": 0, "end": 2, "text": "Zoë"},)"
                     R"( {"start": 21, "end": 23, "text": "Zoë"}]}]})"),
      (Pairs{"record query: @placeholder entities: Mara, Zoë passage: Zoë, Mara. Zoë -> Zoë"}));
  EXPECT_EQ(cast("wsc", R"({"text": "The cats ran. Bob said they left",)"
                        R"( "target": {"span1_index": 0, "span1_text": "the cats.",)"
                        R"( "span2_index": 5, "span2_text": "they"}, "idx": 0, "label": true})"),
            (Pairs{"wsc: The cats ran. Bob said *they* left -> The cats"}));
}

TEST_F(TaskFiles, APronounIsStarredWhereItStands) {
  const auto wsc = [&](const char* text, int index, const char* pronoun) {
    const std::string row =
        fmt::format(R"({{"text": "{}", "span1_text": "Bob", "span1_index": 0, "span2_text": "{}", )"
                    R"("span2_index": {}, "label": 1}})",
                    text, pronoun, index);
    return cast("wsc", row).at(0);
  };
  EXPECT_EQ(wsc("Bob said he thinks he left", 4, "he"), "wsc: Bob said he thinks *he* left -> Bob");
  EXPECT_EQ(wsc("Good for him, said Bob", 2, "him"), "wsc: Good for *him* , said Bob -> Bob");
  EXPECT_EQ(wsc("to use it , but", 1, "it"), "wsc: to use *it* , but -> Bob");
  EXPECT_EQ(wsc("It is Bob", 0, "It"), "wsc: *It* is Bob -> Bob");
  EXPECT_THAT(refusal("wsc", R"({"text": "a b", "span1_text": "a", "span1_index": 0,)"
                             R"( "span2_text": "he", "span2_index": 9, "label": 1})"),
              HasSubstr("\"span2_text\" is 'he' at word 9, but no word of the text is"));
}

TEST_F(TaskFiles, BlocksOfDpr) {
  EXPECT_EQ(
      cast("dpr", "Bob told Tom he, too, left.\nhe\nBob,Tom\nTom\n\nA saw B. \nit\nA, B\nA\n"),
      (Pairs{"wsc: Bob told Tom *he*, too, left. -> Tom", "wsc: A saw B. -> A"}));
  EXPECT_THAT(refusal("dpr", "One.\nhe\n\n"), HasSubstr(":1: a block of 2 line(s), expected four"));
}

TEST_F(TaskFiles, DocumentsOfQuestionAnswering) {
  const std::string squad =
      R"({"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "US$3 it's.",)"
      "\n"
      R"("qas": [{"id": "1", "question": "What's it?", "answers": [{"text": "$3", "answer_start": 2},)"
      R"({"text": "US$3", "answer_start": 0}]}]}]}]})";
  EXPECT_EQ(cast("squad", squad),
            (Pairs{"question: What ' s it ? context: US $ 3 it ' s .  ->  $ 3"}));
  const auto task = open("squad", squad);
  EXPECT_EQ(task->metrics(std::vector<std::string>{"US $ 3"})[0].second, 100);
  EXPECT_EQ(task->metrics(std::vector<std::string>{"US$3"})[0].second, 0);  // not as it was tuned
  EXPECT_EQ(task->metrics(std::vector<std::string>{"US$3"}, AnswerSource::elsewhere)[0].second,
            100);

  const Pairs want{"wq question: q? -> A \"b\""};
  EXPECT_EQ(cast("webquestions", R"([{"qId": "w", "answers": ["A \"b\"", "c"], "qText": "q?"}])"),
            want);
  EXPECT_EQ(cast("webquestions", R"x([{"url": "u", "utterance": "q?", "targetValue":)x"
                                 "\n"
                                 R"x("(list (description \"A \\\"b\\\"\") (description c d))"}])x"),
            want);
  EXPECT_EQ(cast("nq", R"({"question": "q", "answer": ["x", "y"]})"),
            (Pairs{"nq question: q -> x"}));
  EXPECT_EQ(cast("triviaqa", R"({"Data": [{"Question": "q", "Answer": {"Value": "V",)"
                             R"( "Aliases": ["v1", "V"]}}]})"),
            (Pairs{"trivia_qa question: q -> V"}));
  const auto trivia =
      open("triviaqa", R"({"question": "q", "answer": {"value": "V", "aliases": ["v one", "V"]}})");
  EXPECT_EQ(trivia->metrics(std::vector<std::string>{"V-One"})[0].second, 100);
}

TEST_F(TaskFiles, Choices) {
  const Pairs want{"arc question: Q? choice1: x choice2: y -> y"};
  EXPECT_EQ(
      cast("arc_easy", R"({"question": {"stem": "Q?", "choices": [{"text": "x", "label": "1"},)"
                       R"( {"text": "y", "label": "2"}]}, "answerKey": "2"})"),
      want);
  EXPECT_EQ(cast("arc_challenge", R"({"question": "Q?", "choices": {"text": ["x", "y"],)"
                                  R"( "label": ["A", "B"]}, "answerKey": "B"})"),
            want);
  EXPECT_EQ(
      cast("winogrande", R"({"sentence": "a _", "option1": "x", "option2": "y", "answer": "2"})"),
      (Pairs{"winogrande sentence: a _ choice1: x choice2: y -> y"}));
  EXPECT_THAT(refusal("arc_easy", R"({"question": "Q?", "choices": {"text": ["x", "y"],)"
                                  R"( "label": ["A", "B"]}, "answerKey": "C"})"),
              HasSubstr("field \"answerKey\" is \"C\", expected one of A, B"));
}

TEST_F(TaskFiles, Summaries) {
  const Pairs want{"summarize: A. -> B."};
  EXPECT_EQ(cast("xsum", R"({"document": "A.", "summary": "B.", "id": "1"})"), want);
  EXPECT_EQ(cast("cnn_dailymail", R"({"article": "A.", "highlights": "B."})"), want);
  EXPECT_EQ(cast("xsum", R"({"article": "A.", "highlights": "B."})"), want);
  EXPECT_THAT(refusal("xsum", R"({"article": "A."})"), HasSubstr("no field \"summary\""));
}

TEST_F(TaskFiles, PairsOfText) {
  EXPECT_EQ(cast("", "a\tb\n\nc\t\n"), (Pairs{"a -> b", "c -> "}));
  EXPECT_EQ(cast("", "{a}\tb\n"), (Pairs{"{a} -> b"}));
  EXPECT_EQ(cast("", "{\"input\": \"a\\tb\", \"target\": \"c\\nd\"}\n"), (Pairs{"a\tb -> c\nd"}));
  const auto task = open("", "a\tb\nc\td\n");
  EXPECT_EQ(task->metrics(std::vector<std::string>{"b", "D"})[0].second, 50);
  EXPECT_THAT(error_of(ErrorKind::usage, [&] { task->metrics(std::vector<std::string>{"b"}); }),
              HasSubstr("1 answer(s) for 2 example(s)"));
  EXPECT_THAT(refusal("", "a\tb\nc\xff\td\n"),
              HasSubstr(":2: byte 2 of the line (0xFF) is not UTF-8"));
}

TEST_F(TaskFiles, MalformedJsonIsPlaced) {
  EXPECT_THAT(refusal("", "{\"input\": \"a\", \"target\": \"b\"}\n{\"input\": }\n"),
              HasSubstr(":2: malformed JSON at byte 11:"));
  EXPECT_THAT(refusal("squad", "{\"data\": [\n{\"paragraphs\": [\n}\n"),
              HasSubstr(":3: malformed JSON:"));
  EXPECT_THAT(
      refusal("squad", R"({"data": [{"paragraphs": [{"context": "c", "qas": [{}]}]}]})"),
      HasSubstr(R"(:1: data[0]: paragraphs[0]: qas[0]: no field "question" (there is: nothing); )"
                "squad's examples have context, question, answers"));
}

TEST_F(TaskFiles, NamesAreForgiving) {
  for (const char* name : {"SST-2", "glue_sst2"}) {
    EXPECT_EQ(open(name, "sentence\tlabel\ngood\t1\n")->name(), "sst2") << name;
  }
  EXPECT_EQ(open("super_glue_boolq", R"({"question": "q", "passage": "p", "label": 0})")->name(),
            "boolq");
  EXPECT_THAT(error_of(ErrorKind::usage, [&] { open("super_glue_boolk", "x"); }),
              HasSubstr("'super_glue_boolk' names no task"));
  const auto colon = write("a:b.tsv", "x\ty\n").string();
  EXPECT_EQ(Task::open(colon)->name(), colon);
}

TEST_F(TaskFiles, AnswersAreLinesOrAFieldOfJson) {
  const auto of = [&](int questions, std::string_view answers) {
    std::string pairs;
    for (int i = 0; i < questions; ++i) pairs += "q\ta\n";
    return read_answers(write("answers", answers), *open("", pairs));
  };
  EXPECT_EQ(of(4, "one\n\n three \r\n\n"), (Pairs{"one", "", " three ", ""}));
  EXPECT_EQ(of(2, "{\"prediction\": \"a\\nb\"}\n{\"prediction\": \"\"}\n"), (Pairs{"a\nb", ""}));
  EXPECT_EQ(of(1, "{\"prompt\": \"p\", \"text\": \"t\", \"tokens\": [1]}\n"), (Pairs{"t"}));
  EXPECT_EQ(of(1, "{x\n"), (Pairs{"{x"}));
  EXPECT_EQ(of(1, "{\"id\": \"a\"}\n"), (Pairs{"{\"id\": \"a\"}"}));  // its questions have no ids
}

TEST_F(TaskFiles, AnswersToQuestionsWithIdsMayBeOneObject) {
  const std::string squad =
      R"({"data": [{"paragraphs": [{"context": "US$3.", "qas": [)"
      R"({"id": "one", "question": "How much?", "answers": [{"text": "US$3"}]},)"
      R"({"id": "two", "question": "What?", "answers": [{"text": "the"}]}]}]}]})";
  const auto task = open("squad", squad);
  const auto of = [&](std::string_view answers) {
    return read_answers(write("answers", answers), *task);
  };
  const auto refusal_of = [&](std::string_view answers) {
    return error_of(ErrorKind::corrupt, [&] { of(answers); });
  };
  const Pairs want{"US$3", "x"};
  EXPECT_EQ(of(R"({"two": "x", "one": "US$3"})"), want);
  EXPECT_EQ(of("\n {\n\"two\":\n\"x\",\r\n\"one\": \"US$3\"\n}\n"), want);
  EXPECT_EQ(of("US$3\nx\n"), want);
  EXPECT_EQ(of("{US$3\nx\n"), (Pairs{"{US$3", "x"}));
  EXPECT_EQ(of("{\"prediction\": \"US$3\"}\n{\"prediction\": \"x\"}\n"), want);
  // Nothing is equal to a reference of articles alone; no answer is not.
  const auto score = [&](std::string_view answers) {
    return task->metrics(of(answers), AnswerSource::elsewhere)[0].second;
  };
  EXPECT_EQ(score(R"({"one": "US$3", "two": ""})"), 100);
  EXPECT_EQ(score(R"({"one": "US$3"})"), 50);
  EXPECT_EQ(score("{}"), 0);

  EXPECT_EQ(of(R"({"two": "x", "2": "y", "one": "US$3"})"), want);  // the id of another question
  EXPECT_THAT(refusal_of(R"({"One": "US$3", "1": "y"})"),
              AllOf(HasSubstr("answers: none of its 2 ids is of a question of "),
                    HasSubstr("such as \"1\"; give --task the file whose questions they are")));
  EXPECT_THAT(refusal_of(R"({"one": "x", "two": "y", "one": "z"})"),
              HasSubstr("answers: question \"one\" has two answers, expected one"));
  EXPECT_THAT(refusal_of(R"({"one": ["x"], "two": "y"})"),
              HasSubstr("the answer to question \"one\" is a list, expected a string"));
  EXPECT_THAT(
      refusal_of("{\"one\": \"x\",\n\n\"two\": \"y"),
      AllOf(HasSubstr("answers:3: malformed JSON: "),
            HasSubstr("expected one object {\"id\": \"answer\", ...}, or a line for each of 2")));
  EXPECT_THAT(refusal_of("x\n"), HasSubstr("answers: 1 answers for the 2 examples of "));

  const auto trivia = open("triviaqa", R"({"question_id": "q7", "question": "q", "answer": "A"})");
  EXPECT_EQ(read_answers(write("answers", R"({"q7": "a"})"), *trivia), (Pairs{"a"}));
}

}  // namespace
}  // namespace sw
