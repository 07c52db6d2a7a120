#include "libswitch/data/text_to_text.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::error_of;
using testing::small_tokenizer;

class TextToTextTest : public DataTest {
 protected:
  // Pairs of many lengths, no two of them with the same input.
  std::string pairs_file(const std::string& name, int count, int seed = 0) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      for (int k = 0; k <= (i * 7 + seed) % 11; ++k) text += "ba ";
      for (int left = i + 1; left > 0; left /= 4) text += kDigits[left % 4];
      text += "\t";
      for (int k = 0; k <= (i + seed) % 3; ++k) text += "ke ";
      text += "\n";
    }
    return write(name, text).string();
  }
  static constexpr const char* kDigits[] = {"li", "mo", "nu", "ra"};
  static TextToTextOptions options(bool pack = true) {
    TextToTextOptions out;
    out.input_length = 48, out.target_length = 24, out.pack = pack, out.seed = 7;
    return out;
  }
};

// Pairs of a row, as ids.
std::vector<std::pair<std::vector<int32_t>, std::vector<int32_t>>> segments_of(const Batch& batch,
                                                                               int64_t row) {
  std::vector<std::pair<std::vector<int32_t>, std::vector<int32_t>>> out;
  const auto take = [&](const std::vector<int32_t>& ids, const std::vector<int32_t>& segments,
                        int64_t length, bool targets) {
    for (int64_t i = row * length; i < (row + 1) * length; ++i) {
      const auto at = static_cast<size_t>(i);
      const int32_t segment = segments[at];
      EXPECT_EQ(segment == 0, ids[at] == Tokenizer::kPad);
      if (segment == 0) continue;
      if (static_cast<size_t>(segment) > out.size()) out.resize(static_cast<size_t>(segment));
      auto& pair = out[static_cast<size_t>(segment - 1)];
      (targets ? pair.second : pair.first).push_back(ids[at]);
    }
  };
  take(batch.inputs, batch.input_segments, batch.input_length, false);
  take(batch.targets, batch.target_segments, batch.target_length, true);
  return out;
}

TEST_F(TextToTextTest, EveryEpochHasEveryPairOnceInAnotherOrder) {
  const Tokenizer& v = small_tokenizer();
  const TextToTextDataset data({{pairs_file("a", 101), 0}}, v, options());
  std::vector<std::vector<std::vector<int32_t>>> orders;
  uint64_t ordinal = 0;
  Batch batch;
  for (uint64_t epoch = 0; epoch < 6; ++epoch) {
    std::multiset<std::vector<int32_t>> seen;
    orders.emplace_back();
    for (; data.position(ordinal).epoch == epoch; ++ordinal) {
      data.fill(ordinal, 1, batch);
      for (const auto& [input, target] : segments_of(batch, 0)) {
        EXPECT_EQ(input.back(), Tokenizer::kEos);
        EXPECT_EQ(target.back(), Tokenizer::kEos);
        seen.insert(input);
        orders.back().push_back(input);
      }
    }
    EXPECT_EQ(seen.size(), 101U);
    EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), 101U);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  EXPECT_NE(orders[0], orders[4]);  // the same packing
  EXPECT_EQ(data.rows(0), [&] {
    uint64_t rows = 0;
    while (data.position(rows).epoch == 0) ++rows;
    return rows;
  }());
}

TEST_F(TextToTextTest, RowsAreAFunctionOfTheirOrdinalAlone) {
  const Tokenizer& v = small_tokenizer();
  const std::vector<TaskSource> sources{{pairs_file("a", 60), 2}, {pairs_file("b", 31, 5), 0}};
  const TextToTextDataset one(sources, v, options()), other(sources, v, options());
  Batch all, part;
  one.fill(0, 400, all);
  for (const uint64_t first : {399, 7, 250, 0, 123}) {  // as after a restart, in any order
    other.fill(first, 1, part);
    const auto begin = all.inputs.begin() + static_cast<int64_t>(first) * 48;
    EXPECT_TRUE(std::equal(part.inputs.begin(), part.inputs.end(), begin)) << first;
  }
  EXPECT_EQ(one.manifest().hex(), other.manifest().hex());
  TextToTextOptions changed = options();
  changed.pack = false;
  EXPECT_NE(TextToTextDataset(sources, v, changed).manifest().hex(), one.manifest().hex());
  changed = options();
  changed.seed = 8;
  Batch reseeded;
  TextToTextDataset(sources, v, changed).fill(0, 400, reseeded);
  EXPECT_NE(reseeded.inputs, all.inputs);
}

TEST_F(TextToTextTest, PackingFillsRows) {
  const TextToTextDataset data({{pairs_file("a", 400), 0}}, small_tokenizer(), options());
  const TokenizedPairs& pairs = data.pairs(0);
  int64_t inputs = 0, targets = 0;
  for (int64_t i = 0; i < pairs.size(); ++i) {
    inputs += static_cast<int64_t>(pairs.input(i).size());
    targets += static_cast<int64_t>(pairs.target(i).size());
  }
  const auto rows = static_cast<double>(data.rows(0));
  EXPECT_GT(std::max(static_cast<double>(inputs) / (rows * 48),
                     static_cast<double>(targets) / (rows * 24)),
            0.85);
}

TEST_F(TextToTextTest, MixturesGivePairsTheirRates) {
  const Tokenizer& v = small_tokenizer();
  const std::string a = pairs_file("a", 300), b = pairs_file("b", 100, 5);
  const auto share_of_pairs = [&](double weight_a, double weight_b) {
    const TextToTextDataset data({{a, weight_a}, {b, weight_b}}, v, options());
    std::map<int64_t, double> pairs;
    Batch batch;
    for (uint64_t i = 0; i < 2000; ++i) {
      data.fill(i, 1, batch);
      pairs[data.position(i).source] += static_cast<double>(segments_of(batch, 0).size());
    }
    return pairs[0] / (pairs[0] + pairs[1]);
  };
  EXPECT_NEAR(share_of_pairs(0, 0), 0.75, 0.01);  // by size
  EXPECT_NEAR(share_of_pairs(1, 4), 0.2, 0.01);
  EXPECT_NEAR(share_of_pairs(3, 0), 0.75, 0.01);  // a weight that is not given is 1
}

TEST_F(TextToTextTest, WithoutPackingARowHoldsAPair) {
  const TextToTextDataset data({{pairs_file("a", 20), 0}}, small_tokenizer(), options(false));
  EXPECT_EQ(data.rows(0), 20U);
  Batch batch;
  data.fill(5, 3, batch);
  EXPECT_TRUE(batch.input_segments.empty());
  EXPECT_EQ(batch.rows, 3);
}

TEST_F(TextToTextTest, LongSidesAreCutAndEnded) {
  const auto file = write("long", "ba ke li mo nu ra se ti\tvo\n");
  const TextToTextOptions cut{.input_length = 4, .target_length = 2, .pack = true, .seed = 0};
  const TextToTextDataset data({{file.string(), 0}}, small_tokenizer(), cut);
  EXPECT_EQ(data.pairs(0).cut_inputs(), 1);
  EXPECT_EQ(data.pairs(0).input(0).size(), 4U);
  EXPECT_EQ(data.pairs(0).input(0).back(), Tokenizer::kEos);
}

TEST_F(TextToTextTest, EvaluationRowsArePaddedAndInOrder) {
  const auto task = Task::open(pairs_file("a", 5));
  const TextToTextEvalSet set(*task, small_tokenizer(), 40, 10);
  const PairRows rows = set.rows();
  EXPECT_EQ(rows.rows(), 5);
  const int64_t length = rows.input_length();  // of the longest, rounded up
  EXPECT_EQ(length, 16);
  Batch batch;
  rows.fill(3, 4, batch);
  const auto prompts = set.prompts();
  for (int64_t row = 0; row < 4; ++row) {
    std::vector<int32_t> want =
        row < 2 ? prompts[static_cast<size_t>(3 + row)] : std::vector<int32_t>();
    want.resize(static_cast<size_t>(length), Tokenizer::kPad);
    const auto begin = batch.inputs.begin() + row * length;
    EXPECT_EQ(std::vector<int32_t>(begin, begin + length), want) << row;
  }
  EXPECT_EQ(small_tokenizer().decode(prompts[4]), task->pairs()[4].input);
}

TEST_F(TextToTextTest, EvaluationRowsGoByLength) {
  std::string text;
  for (int i = 0; i < 90; ++i) {
    for (int k = 0; k < i * 37 % 90; ++k) text += "ba ";
    text += "\tke\n";
  }
  const TextToTextEvalSet set(*Task::open(write("a", text).string()), small_tokenizer(), 512, 10);
  const std::vector<PairRows> groups = set.by_length();
  ASSERT_GE(groups.size(), 2U);
  int64_t rows = 0;
  for (const PairRows& group : groups) {
    EXPECT_GT(group.rows(), 0);
    rows += group.rows();
  }
  EXPECT_EQ(rows, 90);
  EXPECT_LE(groups[0].input_length(), 32);
  EXPECT_GT(groups[1].input_length(), 32);
  EXPECT_EQ(groups.back().input_length(), set.rows().input_length());
}

TEST_F(TextToTextTest, WeightsStandBehindTheFile) {
  EXPECT_EQ(parse_task_source("boolq:x.jsonl=2.5").spec, "boolq:x.jsonl");
  EXPECT_EQ(parse_task_source("boolq:x.jsonl=2.5").weight, 2.5);
  EXPECT_EQ(parse_task_source("x.tsv").weight, 0);
  const auto file = write("a=3", "x\ty\n").string();
  EXPECT_EQ(parse_task_source(file).spec, file);
  EXPECT_EQ(parse_task_source("cola:" + file).spec, "cola:" + file);
  EXPECT_THAT(error_of(ErrorKind::usage, [] { parse_task_source("x.tsv=-1"); }),
              ::testing::HasSubstr("--task x.tsv=-1: the weight after '=' is '-1'"));
}

}  // namespace
}  // namespace sw
