#include "libswitch/data/dataset.h"

#include <numeric>
#include <set>
#include <thread>

#include "libswitch/data/prefetcher.h"
#include "libswitch/data/sample_order.h"
#include "libswitch/data/shard_reader.h"
#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::error_of;
using testing::plain_header;
using testing::random_documents;
using testing::shard_bytes;

TEST(SampleOrder, FeistelIsAPermutationOfEverySize) {
  for (uint64_t n = 1; n < 300; n = n < 70 ? n + 1 : n * 5 / 4) {
    const FeistelPermutation permutation(n, rng_key(n, RngPurpose::shuffle));
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < n; ++i) {
      ASSERT_LT(permutation(i), n);
      seen.insert(permutation(i));
    }
    EXPECT_EQ(seen.size(), n);
  }
}

TEST(SampleOrder, FeistelSpreadsEveryIndexEvenly) {
  constexpr uint64_t kSize = 20;
  std::vector<std::vector<int>> hits(kSize, std::vector<int>(kSize));
  constexpr int kKeys = 20000;
  for (int k = 0; k < kKeys; ++k) {
    const FeistelPermutation permutation(kSize,
                                         rng_key(static_cast<uint64_t>(k), RngPurpose::shuffle));
    for (uint64_t i = 0; i < kSize; ++i) ++hits[i][permutation(i)];
  }
  double chi2 = 0;
  const double expected = kKeys / static_cast<double>(kSize);
  for (const auto& row : hits) {
    for (const int n : row) chi2 += (n - expected) * (n - expected) / expected;
  }
  EXPECT_LT(chi2, 361 + 6 * std::sqrt(2 * 361.0));
}

TEST(SampleOrder, MixtureKeepsToItsWeightsAtEveryMoment) {
  for (const std::vector<double>& weights : {std::vector<double>{1},
                                             {1, 1},
                                             {3, 1},
                                             {0.7, 0.2, 0.1},
                                             {1, 1e-9},
                                             {5, 4, 3, 2, 1, 0.01}}) {
    const MixSchedule mix(weights);
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<uint64_t> drawn(weights.size());
    for (uint64_t i = 0; i < 150000; ++i) {
      const MixSchedule::Draw draw = mix(i);
      // The state is a function of the position alone.
      ASSERT_EQ(draw.ordinal, drawn[static_cast<size_t>(draw.source)]) << i;
      ++drawn[static_cast<size_t>(draw.source)];
      if (i % 997 == 0) {
        for (size_t s = 0; s < weights.size(); ++s) {
          const double due = static_cast<double>(i + 1) * weights[s] / total;
          EXPECT_NEAR(static_cast<double>(drawn[s]), due,
                      static_cast<double>(weights.size()) + static_cast<double>(i) / 32768);
        }
      }
    }
  }
  error_of(ErrorKind::usage, [] { MixSchedule({}); });
  error_of(ErrorKind::usage, [] { MixSchedule({1, 0}); });
  error_of(ErrorKind::usage, [] { MixSchedule({1, NAN}); });
}

class DatasetTest : public DataTest {
 protected:
  // Tokens 1000, 1001, ... so that a window says where it comes from.
  std::filesystem::path counting_shard(const std::string& name, int tokens, uint32_t block_tokens,
                                       int from = 1000) {
    std::vector<int32_t> document(static_cast<size_t>(tokens));
    std::iota(document.begin(), document.end(), from);
    return write(name, shard_bytes({document}, plain_header(200000, block_tokens)));
  }
  static DatasetOptions short_windows(uint64_t seed = 0) {
    DatasetOptions options;
    options.input_length = 16;  // 17 tokens, targets 5
    options.seed = seed;
    return options;
  }
  // The text of one row: inputs and targets merged by value.
  static std::vector<int32_t> text_of(const Batch& batch, int64_t row) {
    std::vector<int32_t> text;
    const auto take = [&](const std::vector<int32_t>& ids, int64_t length) {
      for (int64_t i = 0; i < length; ++i) {
        const int32_t id = ids[static_cast<size_t>(row * length + i)];
        if (id >= 1000 && id < 199000) text.push_back(id);
      }
    };
    take(batch.inputs, batch.input_length);
    take(batch.targets, batch.target_length);
    std::sort(text.begin(), text.end());
    return text;
  }
};

TEST_F(DatasetTest, AnEpochGivesEveryWindowOnce) {
  // 130 blocks of 100 tokens and one of 60: five windows of 17 each, three in the last.
  const auto path = counting_shard("a.swt", 13060, 100);
  const Dataset dataset({{path, 0}}, short_windows());
  EXPECT_EQ(dataset.windows(0), 653u);
  EXPECT_EQ(dataset.window().tokens, 17);
  EXPECT_EQ(dataset.target_length(), 5);
  EXPECT_EQ(dataset.vocabulary().vocab_size, 200000);
  EXPECT_EQ(dataset.vocabulary().padded_vocab_size, 200064);
  std::vector<int32_t> previous;
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    Batch batch;
    dataset.fill(653 * epoch, 653, batch);
    ASSERT_EQ(batch.rows, 653);
    ASSERT_EQ(batch.inputs.size(), 653u * 16);
    ASSERT_EQ(batch.targets.size(), 653u * 5);
    EXPECT_TRUE(batch.input_segments.empty());
    std::set<int32_t> starts;
    std::vector<int32_t> order;
    for (int64_t row = 0; row < 653; ++row) {
      const std::vector<int32_t> text = text_of(batch, row);
      ASSERT_EQ(text.size(), 17u);
      for (size_t i = 1; i < 17; ++i) ASSERT_EQ(text[i], text[0] + static_cast<int32_t>(i));
      ASSERT_EQ((text[0] - 1000) % 100 % 17, 0);
      starts.insert(text[0]);
      order.push_back(text[0]);
      const auto position = dataset.position(653 * epoch + static_cast<uint64_t>(row));
      EXPECT_EQ(position.epoch, epoch);
      EXPECT_EQ(position.block * 100 + position.window * 17 + 1000, text[0]);
    }
    EXPECT_EQ(starts.size(), 653u);
    EXPECT_NE(order, previous);
    EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
    previous = order;
  }
}

TEST_F(DatasetTest, ShufflingNeedsTwoGroupsOfBlocksAtMost) {
  const auto path = counting_shard("a.swt", 20000, 100);
  const Dataset dataset({{path, 0}}, short_windows());
  std::set<int64_t> blocks;
  for (uint64_t i = 0; i < 64 * 5; ++i) blocks.insert(dataset.position(i).block);
  EXPECT_EQ(blocks.size(), 64u);
}

TEST_F(DatasetTest, SamplesArePureFunctionsOfTheirOrdinal) {
  const auto a = counting_shard("a.swt", 5000, 100), b = counting_shard("b.swt", 3000, 70, 50000);
  const Dataset one({{a, 3}, {b, 1}}, short_windows(7)), two({{a, 3}, {b, 1}}, short_windows(7)),
      other({{a, 3}, {b, 1}}, short_windows(8));
  Batch whole;
  one.fill(0, 1000, whole);
  // In any order, in pieces, from another opening.
  for (const uint64_t first : {900u, 17u, 0u, 512u}) {
    Batch part;
    two.fill(first, 32, part);
    for (int64_t i = 0; i < 32 * 16; ++i) {
      ASSERT_EQ(part.inputs[static_cast<size_t>(i)],
                whole.inputs[first * 16 + static_cast<size_t>(i)]);
    }
    for (int64_t i = 0; i < 32 * 5; ++i) {
      ASSERT_EQ(part.targets[static_cast<size_t>(i)],
                whole.targets[first * 5 + static_cast<size_t>(i)]);
    }
  }
  Batch different;
  other.fill(0, 1000, different);
  EXPECT_NE(different.inputs, whole.inputs);
  EXPECT_DOUBLE_EQ(one.share(0), 0.75);
  int from_a = 0;
  for (int64_t row = 0; row < 1000; ++row) from_a += text_of(whole, row)[0] < 50000;
  EXPECT_EQ(from_a, 750);
}

TEST_F(DatasetTest, MasksDifferBetweenEpochs) {
  const auto path = counting_shard("a.swt", 17, 100);
  const Dataset dataset({{path, 0}}, short_windows());
  std::set<std::vector<int32_t>> seen;
  for (uint64_t epoch = 0; epoch < 200; ++epoch) {
    Batch batch;
    dataset.fill(epoch, 1, batch);
    EXPECT_EQ(text_of(batch, 0).size(), 17u);
    seen.insert(batch.inputs);
  }
  // 3 noise tokens in one span of a window of 17: always the same; the text in front of it fixed.
  EXPECT_GE(seen.size(), 1u);
  DatasetOptions longer = short_windows();
  longer.input_length = 64;
  const Dataset big({{counting_shard("b.swt", 70, 100), 0}}, longer);
  seen.clear();
  for (uint64_t epoch = 0; epoch < 200; ++epoch) {
    Batch batch;
    big.fill(epoch, 1, batch);
    seen.insert(batch.inputs);
  }
  EXPECT_GT(seen.size(), 190u);
}

TEST_F(DatasetTest, WeightsDefaultToSizeOrTemperature) {
  const auto a = counting_shard("a.swt", 17 * 160, 17), b = counting_shard("b.swt", 17 * 10, 17);
  EXPECT_NEAR(Dataset({{a, 0}, {b, 0}}, short_windows()).share(0), 16.0 / 17, 1e-4);
  EXPECT_NEAR(Dataset({{a, 0}, {b, 3}}, short_windows()).share(0), 0.25, 1e-4);
  DatasetOptions options = short_windows();
  options.temperature = 2;
  EXPECT_NEAR(Dataset({{a, 0}, {b, 0}}, options).share(0), 0.8, 1e-4);
}

TEST_F(DatasetTest, ManifestNamesTheDataAndTheMixture) {
  const auto a = counting_shard("a.swt", 5000, 100), b = counting_shard("b.swt", 5000, 100, 1001);
  std::filesystem::copy_file(a, path("copy.swt"));
  const auto manifest = [&](const std::vector<DataSource>& sources, DatasetOptions options) {
    return Dataset(sources, options).manifest();
  };
  const Hash128 base = manifest({{a, 0}}, short_windows());
  EXPECT_EQ(base, manifest({{path("copy.swt"), 0}}, short_windows(3)));
  EXPECT_NE(base, manifest({{b, 0}}, short_windows()));
  EXPECT_NE(base, manifest({{a, 0}, {b, 0}}, short_windows()));
  EXPECT_NE(manifest({{a, 1}, {b, 2}}, short_windows()),
            manifest({{a, 2}, {b, 1}}, short_windows()));
  DatasetOptions longer = short_windows();
  longer.input_length = 32;
  EXPECT_NE(base, manifest({{a, 0}}, longer));
}

TEST_F(DatasetTest, RefusesDataThatDoesNotFit) {
  const auto small = counting_shard("small.swt", 16, 100);
  const std::string message = error_of(ErrorKind::usage, [&] {
    Dataset({{small, 0}}, short_windows());
  });
  EXPECT_NE(message.find("less than one window of 17"), message.npos) << message;
  const auto a = counting_shard("a.swt", 500, 100);
  ShardHeader header = plain_header(200000, 100);
  header.vocab_sha256[5] ^= 1;
  const auto other = write("other.swt", shard_bytes(random_documents(9, 90, 500, 1), header));
  error_of(ErrorKind::corrupt, [&] { Dataset({{a, 0}, {other, 0}}, short_windows()); });
  header = plain_header(200000, 100);
  header.content = 1;
  const auto pairs = write("pairs.swt", shard_bytes(random_documents(8, 90, 500, 1), header));
  error_of(ErrorKind::corrupt, [&] { Dataset({{pairs, 0}}, short_windows()); });
  error_of(ErrorKind::missing, [&] { Dataset({{path("none.swt"), 0}}, short_windows()); });
  error_of(ErrorKind::usage, [&] { Dataset({}, short_windows()); });
  // A block that goes bad after opening.
  std::string bytes = read_file(a);
  const ShardIndexRow row = ShardFile(a).row(2);
  bytes[row.offset + row.frame_bytes + 10] ^= 1;
  const Dataset damaged({{write("damaged.swt", bytes), 0}}, short_windows());
  Batch batch;
  const std::string where = error_of(ErrorKind::corrupt, [&] { damaged.fill(0, 30, batch); });
  EXPECT_NE(where.find("damaged.swt: segment 0, block 2"), where.npos) << where;
}

TEST_F(DatasetTest, ReadsASourceArgument) {
  EXPECT_EQ(parse_data_source("a.swt").weight, 0);
  EXPECT_EQ(parse_data_source("a.swt=0.5").weight, 0.5);
  EXPECT_EQ(parse_data_source("x=y/a.swt=2").path, "x=y/a.swt");
  const auto named = counting_shard("n=5", 100, 100);
  EXPECT_EQ(parse_data_source(named.string()).path, named);
  for (const char* text :
       {"a.swt=", "a.swt=x", "a.swt=0", "a.swt=-1", "a.swt=nan", "a.swt=inf", "a.swt=1x"}) {
    error_of(ErrorKind::usage, [&] { parse_data_source(text); });
  }
}

TEST_F(DatasetTest, ManyThreadsSeeTheSameSamples) {
  const auto path = counting_shard("a.swt", 30000, 100);
  const Dataset dataset({{path, 0}}, short_windows());
  Batch expected;
  dataset.fill(0, 2000, expected);
  const Dataset fresh({{path, 0}}, short_windows());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Batch batch;
      for (uint64_t i = 0; i < 40; ++i) {
        const uint64_t first = (i * 50 + t * 500) % 2000;
        fresh.fill(first, 50, batch);
        wrong += !std::equal(batch.inputs.begin(), batch.inputs.end(),
                             expected.inputs.begin() + static_cast<std::ptrdiff_t>(first * 16));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(DatasetTest, PrefetcherGivesTheBatchesInOrderAndTheErrorInItsPlace) {
  const auto path = counting_shard("a.swt", 3000, 100);
  const Dataset dataset({{path, 0}}, short_windows());
  {
    Prefetcher prefetcher(
        [&](int64_t step, Batch& batch) {
          dataset.fill(static_cast<uint64_t>(step) * 8, 8, batch);
        },
        5);
    Batch batch, expected;
    for (int64_t step = 5; step < 30; ++step) {
      prefetcher.next(batch);
      dataset.fill(static_cast<uint64_t>(step) * 8, 8, expected);
      EXPECT_EQ(batch.inputs, expected.inputs);
      EXPECT_EQ(batch.targets, expected.targets);
    }
    EXPECT_GE(prefetcher.wait_seconds(), 0);
  }
  Prefetcher failing(
      [&](int64_t step, Batch& batch) {
        if (step == 3) fail(ErrorKind::corrupt, "bad block");
        dataset.fill(static_cast<uint64_t>(step), 1, batch);
      },
      0, 8);
  Batch batch;
  for (int i = 0; i < 3; ++i) failing.next(batch);
  error_of(ErrorKind::corrupt, [&] { failing.next(batch); });
  error_of(ErrorKind::corrupt, [&] { failing.next(batch); });
}

TEST_F(DatasetTest, EvaluationReadsEveryTokenOnceInOrder) {
  // Windows of 17 run over blocks of 100; the last of 1008 tokens has 5.
  const auto path = counting_shard("a.swt", 1008, 100);
  const EvalSet set(path, short_windows(1));
  ASSERT_EQ(set.rows(), 60);
  Batch batch;
  set.fill(0, 64, batch);
  std::vector<int32_t> all;
  for (int64_t row = 0; row < 64; ++row) {
    const std::vector<int32_t> text = text_of(batch, row);
    all.insert(all.end(), text.begin(), text.end());
    EXPECT_EQ(text.size(), row < 59 ? 17u : row == 59 ? 5u : 0u);
  }
  std::vector<int32_t> expected(1008);
  std::iota(expected.begin(), expected.end(), 1000);
  EXPECT_EQ(all, expected);
  // The short window ends and is padded.
  const int32_t* last = batch.targets.data() + 59 * 5;
  EXPECT_EQ(std::vector<int32_t>(last, last + 5),
            (std::vector<int32_t>{199999, 1004 + 1003, 1, 0, 0}));
  // Neither the seed nor how it is read matters.
  const EvalSet again(path, short_windows(99), 0);
  Batch part;
  again.fill(30, 7, part);
  EXPECT_TRUE(std::equal(part.inputs.begin(), part.inputs.end(), batch.inputs.begin() + 30 * 16));
}

TEST_F(DatasetTest, EvaluationStopsAtItsLimit) {
  const auto path = counting_shard("a.swt", 1008, 100);
  EXPECT_EQ(EvalSet(path, short_windows(), 17).rows(), 1);
  EXPECT_EQ(EvalSet(path, short_windows(), 18).rows(), 2);
  EXPECT_EQ(EvalSet(path, short_windows(), 1 << 20).rows(), 60);
  const auto empty = write("empty.swt", shard_bytes({}, plain_header(200000, 100)));
  error_of(ErrorKind::corrupt, [&] { EvalSet(empty, short_windows()); });
}

TEST_F(DatasetTest, TargetsOfAnotherLengthArePaddedOrCut) {
  const auto path = counting_shard("a.swt", 1008, 100);
  DatasetOptions options = short_windows();
  options.target_length = 8;
  Batch batch;
  Dataset({{path, 0}}, options).fill(0, 3, batch);
  ASSERT_EQ(batch.targets.size(), 24u);
  EXPECT_EQ(batch.targets[4], 1);
  EXPECT_EQ(batch.targets[7], 0);
  options.target_length = 3;
  Dataset({{path, 0}}, options).fill(0, 3, batch);
  EXPECT_EQ(batch.targets[0], 199999);
  EXPECT_EQ(batch.targets[2], 1);
}

}  // namespace
}  // namespace sw
