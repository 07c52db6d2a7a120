#include <gmock/gmock.h>

#include <algorithm>

#include "libswitch/base/hash.h"
#include "tests/io/checkpoint_samples.h"

namespace sw {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::HasSubstr;

TEST(CheckpointRoundTrip, EveryDtypeAndOddShapeComesBack) {
  const TemporaryFolder folder;
  const CommittedCheckpoint done = test::save_sample(folder / "a.h5", 1, 12000, FileCalls());
  EXPECT_EQ(std::filesystem::file_size(done.path), static_cast<uintmax_t>(done.bytes));
  EXPECT_EQ(test::files_in(folder.path()), 1);

  const CheckpointReader reader(done.path);
  EXPECT_EQ(reader.digest(), done.digest);
  EXPECT_EQ(done.digest.size(), 32u);
  std::vector<TensorEntry> entries = test::sample_entries();
  for (const auto& [name, tensor] : test::sample_tensors(entries)) {
    EXPECT_TRUE(test::same_bytes(reader.read(name), tensor)) << name;
  }
  canonicalize(entries);
  EXPECT_EQ(reader.entries(), entries);
  reader.verify_all();
}

TEST(CheckpointRoundTrip, MetadataAndTelemetryComeBack) {
  const TemporaryFolder folder;
  const CheckpointReader reader(test::save_sample(folder / "a.h5").path);
  const CheckpointMeta expected = test::sample_meta();
  const CheckpointMeta& meta = reader.meta();
  EXPECT_EQ(meta.step, expected.step);
  EXPECT_EQ(meta.tokens, expected.tokens);
  EXPECT_EQ(meta.params_total, expected.params_total);
  EXPECT_EQ(meta.params_active, expected.params_active);
  EXPECT_EQ(meta.preset, expected.preset);
  EXPECT_EQ(meta.tool_version, expected.tool_version);
  EXPECT_EQ(meta.created_utc, expected.created_utc);
  EXPECT_EQ(meta.optimizer, expected.optimizer);
  EXPECT_EQ(meta.config_toml, expected.config_toml);
  EXPECT_EQ(meta.argv, expected.argv);
  EXPECT_EQ(meta.metrics_json, expected.metrics_json);
  EXPECT_EQ(meta.tokenizer, expected.tokenizer);
  EXPECT_EQ(meta.tokenizer_sha256.size(), 64u);
  EXPECT_EQ(meta.train, expected.train);
  EXPECT_EQ(meta.attributes, expected.attributes);
  EXPECT_EQ(reader.read_telemetry(), test::sample_telemetry());
}

TEST(CheckpointRoundTrip, ACheckpointOfNothingIsACheckpoint) {
  const TemporaryFolder folder;
  CheckpointWriter writer(folder / "empty.h5", {}, CheckpointMeta{}, Telemetry{});
  const CommittedCheckpoint done = writer.finish();
  const CheckpointReader reader(done.path);
  EXPECT_TRUE(reader.entries().empty());
  EXPECT_EQ(reader.read_telemetry(), Telemetry{});
  EXPECT_EQ(reader.meta().config_toml, "");
  reader.verify_all();
}

TEST(CheckpointRoundTrip, RowsAndExpertsAreReadAlone) {
  const TemporaryFolder folder;
  const CheckpointReader reader(test::save_sample(folder / "a.h5").path);
  const test::Tensors tensors = test::sample_tensors(test::sample_entries());
  const std::string experts = "/model/encoder/block_001/moe/wi";
  EXPECT_TRUE(test::same_bytes(reader.read_rows(experts, 1, 3), tensors.at(experts).slice(1, 3)));
  const std::string table = "/model/shared/embedding";
  EXPECT_TRUE(test::same_bytes(reader.read_rows(table, 4, 9), tensors.at(table).slice(4, 9)));
  EXPECT_EQ(reader.read_rows(table, 5, 5).elements(), 0);
  EXPECT_EQ(error_of([&] { reader.read_rows(table, 5, 12); }).kind(), ErrorKind::usage);
  const Error unknown = error_of([&] { reader.read("/model/shared/embeding"); });
  EXPECT_EQ(unknown.kind(), ErrorKind::missing);
  EXPECT_THAT(unknown.what(), HasSubstr("did you mean '/model/shared/embedding'"));
}

// Two tiles of 64 rows of 1 MiB and a rest, written and read across their border.
TEST(CheckpointRoundTrip, BoxesAreReadAlone) {
  const TemporaryFolder folder;
  test::save_sample(folder / "a.h5");
  const CheckpointReader reader(folder / "a.h5");
  RngStream random(rng_key(3, RngPurpose::test));
  for (const auto& sample : test::sample_tensors(test::sample_entries())) {
    const auto& name = sample.first;
    const auto& tensor = sample.second;
    const int64_t element = element_bytes(tensor.dtype());
    for (int round = 0; round < 20; ++round) {
      Rectangle box;
      int64_t elements = 1;
      for (int d = 0; d < tensor.rank(); ++d) {
        const auto i = static_cast<size_t>(d);
        const auto size = static_cast<uint64_t>(tensor.size(d));
        box.start[i] = static_cast<int64_t>(random.below(size + 1));
        const auto left = size - static_cast<uint64_t>(box.start[i]);
        box.count[i] = static_cast<int64_t>(random.below(left + 1));
        if (round == 0) box.start[i] = 0, box.count[i] = tensor.size(d);
        elements *= box.count[i];
      }
      std::string got(static_cast<size_t>(elements * element), '\0'), want = got;
      for (int64_t i = 0; i < elements; ++i) {
        const int64_t at = index_in_whole(tensor.shape(), box, i) * element;
        std::memcpy(want.data() + i * element, static_cast<const char*>(tensor.raw()) + at,
                    static_cast<size_t>(element));
      }
      reader.read_rectangle(name, box, got.data(), std::ssize(got));
      EXPECT_TRUE(got == want) << name << " round " << round;
      const auto kind = [](const auto& fn) { return error_of(fn).kind(); };
      EXPECT_EQ(kind([&] { reader.read_rectangle(name, box, got.data(), std::ssize(got) + 1); }),
                ErrorKind::usage);
      if (tensor.rank() == 0) continue;
      box.count[0] = tensor.size(0) - box.start[0] + 1;
      EXPECT_EQ(kind([&] { reader.read_rectangle(name, box, got.data(), std::ssize(got)); }),
                ErrorKind::usage);
    }
  }
}

TEST(CheckpointRoundTrip, LargeTensorsAreCutIntoTilesOf64MiB) {
  const TemporaryFolder folder;
  const std::vector<TensorEntry> entries = {
      {"/model/large", DType::f32, Shape{130, 1 << 18}, {"row", "column"}}};
  const std::vector<Tile> tiles = make_tiles(entries);
  ASSERT_EQ(tiles.size(), 3u);
  EXPECT_EQ(tiles[1].begin, 64);
  EXPECT_EQ(tiles[2].bytes, 2 << 20);

  Tensor large = Tensor::empty(entries[0].shape, DType::f32);
  for (int64_t i = 0; i < large.elements(); ++i) large.data<float>()[i] = static_cast<float>(i);
  CheckpointWriter writer(folder / "a.h5", entries, CheckpointMeta{}, Telemetry{},
                          test::unsynced_calls());
  // The second call ends within a tile, the third begins there.
  for (const auto& [begin, end] : {std::pair{0, 64}, {64, 100}, {100, 130}}) {
    writer.write_rectangle("/model/large", {{begin, 0}, {end - begin, 1 << 18}},
                           large.slice(begin, end).raw());
  }
  const CheckpointReader reader(writer.finish().path);
  EXPECT_TRUE(test::same_bytes(reader.read("/model/large"), large));
  EXPECT_TRUE(test::same_bytes(reader.read_rows("/model/large", 60, 129), large.slice(60, 129)));
}

TEST(CheckpointRoundTrip, EachExpertIsATile) {
  const std::vector<TensorEntry> entries = {
      {"/model/wi", DType::f32, Shape{5, 2, 3}, {"expert", "d_model", "d_ff"}},
      {"/model/wo", DType::f32, Shape{5, 2, 3}, {"row", "d_model", "d_ff"}}};
  const std::vector<Tile> tiles = make_tiles(entries);
  ASSERT_EQ(tiles.size(), 6u);
  EXPECT_EQ(tiles[4].begin, 4);
  EXPECT_EQ(tiles[4].first_byte, 96);
  EXPECT_EQ(tiles[4].bytes, 24);
  EXPECT_EQ(tiles[5].bytes, 120);
}

TEST(CheckpointRoundTrip, EveryDatasetBeginsAtAPage) {
  const TemporaryFolder folder;
  CheckpointWriter writer(folder / "a.h5", test::sample_entries(), test::sample_meta(), {});
  for (const uint64_t offset : writer.offsets()) EXPECT_EQ(offset % 4096, 0u);
}

TEST(CheckpointDigest, DoesNotDependOnTheOrderOfWriting) {
  const TemporaryFolder folder;
  const std::string digest = test::save_sample(folder / "a.h5").digest;
  std::vector<TensorEntry> entries = test::sample_entries();
  std::reverse(entries.begin(), entries.end());
  CheckpointWriter writer(folder / "b.h5", entries, test::sample_meta(77), {});
  const test::Tensors tensors = test::sample_tensors(entries);
  for (auto at = tensors.rbegin(); at != tensors.rend(); ++at) {
    writer.write_tensor(at->first, at->second);
  }
  EXPECT_EQ(writer.finish().digest, digest);
}

// Three writers of one file: experts, halves of columns, and the rest.
TEST(CheckpointDigest, DoesNotDependOnWhoWroteWhat) {
  const TemporaryFolder folder;
  const std::string digest = test::save_sample(folder / "a.h5").digest;
  const std::vector<TensorEntry> entries = test::sample_entries();
  const test::Tensors tensors = test::sample_tensors(entries);
  CheckpointWriter first(folder / "b.h5", entries, test::sample_meta(), test::sample_telemetry());
  CheckpointWriter second(folder / "b.h5", entries, first.offsets());
  CheckpointWriter third(folder / "b.h5", entries, first.offsets());
  CheckpointWriter* writers[] = {&first, &second, &third};

  int turn = 0;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.rank() == 3) {  // experts, one each
      for (int64_t e = 0; e < tensor.size(0); ++e) {
        writers[e % 3]->write_rectangle(name, {{e, 0, 0}, {1, tensor.size(1), tensor.size(2)}},
                                        tensor[e].raw());
      }
    } else if (tensor.rank() == 2 && tensor.elements() > 0) {  // two halves of the columns
      const int64_t rows = tensor.size(0), columns = tensor.size(1), half = columns / 2;
      const int64_t element = element_bytes(tensor.dtype());
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, half}, {half, columns}}) {
        std::string part;
        for (int64_t r = 0; r < rows; ++r) {
          part.append(static_cast<const char*>(tensor.raw()) + (r * columns + begin) * element,
                      static_cast<size_t>((end - begin) * element));
        }
        writers[++turn % 3]->write_rectangle(name, {{0, begin}, {rows, end - begin}}, part.data());
      }
    } else if (tensor.rank() == 4) {  // dimension 1 by parts, the last by parts
      const auto* bytes = tensor.data<uint8_t>();
      for (int64_t b = 0; b < 2; ++b) {
        writers[0]->write_rectangle(name, {{0, b, 0, 0}, {1, 1, 1, 4}}, bytes + b * 9);
        writers[1]->write_rectangle(name, {{0, b, 0, 4}, {1, 1, 1, 5}}, bytes + b * 9 + 4);
      }
    } else {
      writers[++turn % 3]->write_tensor(name, tensor);
    }
  }
  std::vector<TileReport> reports = second.reports();
  for (const TileReport& report : third.reports()) reports.push_back(report);
  EXPECT_EQ(first.finish(reports).digest, digest);
  const CheckpointReader reader(folder / "b.h5");
  for (const auto& [name, tensor] : tensors) {
    EXPECT_TRUE(test::same_bytes(reader.read(name), tensor)) << name;
  }
  reader.verify_all();
}

TEST(CheckpointDigest, ChangesWithOneBitOfOneTensorOnly) {
  const TemporaryFolder folder;
  const std::vector<TensorEntry> entries = test::sample_entries();
  const std::string digest = test::save_sample(folder / "a.h5", 1, 5).digest;
  EXPECT_EQ(test::save_sample(folder / "b.h5", 1, 6).digest, digest);
  test::Tensors tensors = test::sample_tensors(entries);
  static_cast<uint8_t*>(tensors["/optim/counts"].raw())[3] ^= 1;
  CheckpointWriter writer(folder / "c.h5", entries, test::sample_meta(), {});
  for (const auto& [name, tensor] : tensors) writer.write_tensor(name, tensor);
  EXPECT_NE(writer.finish().digest, digest);
}

TEST(CheckpointWriter, RefusesWhatDoesNotFitTheSchema) {
  const TemporaryFolder folder;
  const auto entries = test::sample_entries();
  CheckpointWriter writer(folder / "a.h5", entries, CheckpointMeta{}, Telemetry{});
  const auto kind = [](const auto& fn) { return error_of(fn).kind(); };
  const std::string norm = "/model/encoder/final_norm";
  EXPECT_EQ(kind([&] { writer.write_tensor("/model/none", Tensor()); }), ErrorKind::usage);
  EXPECT_EQ(kind([&] { writer.write_tensor(norm, Tensor()); }), ErrorKind::usage);
  EXPECT_EQ(kind([&] { writer.write_tensor(norm, Tensor::zeros({6}, DType::f64)); }),
            ErrorKind::usage);
  EXPECT_EQ(kind([&] { writer.write_tensor(norm, Tensor::zeros({5}, DType::f32)); }),
            ErrorKind::usage);
  const float value = 0;
  EXPECT_EQ(kind([&] { writer.write_rectangle(norm, {{6}, {1}}, &value); }), ErrorKind::usage);
  EXPECT_EQ(kind([&] { writer.write_rectangle(norm, {{-1}, {1}}, &value); }), ErrorKind::usage);
}

TEST(CheckpointWriter, RefusesToFinishWithElementsMissingOrWrittenTwice) {
  const TemporaryFolder folder;
  const std::vector<TensorEntry> entries = {{"/model/x", DType::f32, Shape{4}, {"d_model"}}};
  const Tensor x = Tensor::zeros({4}, DType::f32);
  {
    CheckpointWriter writer(folder / "a.h5", entries, CheckpointMeta{}, Telemetry{});
    writer.write_rectangle("/model/x", {{0}, {3}}, x.raw());
    const Error error = error_of([&] { writer.finish(); });
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_THAT(error.what(), HasSubstr("/model/x, tile 0: expected 4 elements"));
  }
  {
    CheckpointWriter writer(folder / "a.h5", entries, CheckpointMeta{}, Telemetry{});
    writer.write_tensor("/model/x", x);
    writer.write_rectangle("/model/x", {{0}, {1}}, x.raw());
    EXPECT_EQ(error_of([&] { writer.finish(); }).kind(), ErrorKind::internal);
  }
  EXPECT_EQ(test::files_in(folder.path()), 0);
}

TEST(CheckpointWriter, ReadsTilesBackThatWereWrittenInParts) {
  const TemporaryFolder folder;
  const std::vector<TensorEntry> entries = {{"/model/x", DType::f32, Shape{4}, {"d_model"}}};
  const Tensor x = Tensor::from<float>({4}, std::vector<float>{1, 2, 3, 4});
  CheckpointWriter writer(folder / "a.h5", entries, CheckpointMeta{}, Telemetry{});
  writer.write_rectangle("/model/x", {{0}, {2}}, x.raw());
  writer.write_rectangle("/model/x", {{2}, {2}}, x[2].raw());
  EXPECT_EQ(writer.reports().at(0).checked, 0);
  const std::vector<int64_t> tiles = {0};
  const TileReport report = writer.read_back(tiles).at(0);
  EXPECT_EQ(report.elements, 0);
  EXPECT_EQ(report.checked, 1);
  EXPECT_EQ(report.checksum, xxh3_64(x.raw(), 16));
  writer.finish(std::vector<TileReport>{report});
  CheckpointReader(folder / "a.h5").verify_all();
}

TEST(CheckpointWriter, RefusesSchemasThatNoFileCanHold) {
  const TemporaryFolder folder;
  const auto refused = [&](std::vector<TensorEntry> entries, CheckpointMeta meta = {},
                           Telemetry telemetry = {}) {
    const Error error =
        error_of([&] { CheckpointWriter writer(folder / "a.h5", entries, meta, telemetry); });
    EXPECT_EQ(error.kind(), ErrorKind::usage) << error.what();
  };
  const TensorEntry good{"/model/x", DType::f32, Shape{4}, {"d_model"}};
  for (const char* path : {"", "/", "/model", "/model/", "model/x", "/meta/x", "/model//x",
                           "/model/../x", "/model/a b"}) {
    TensorEntry bad = good;
    bad.path = path;
    refused({bad});
  }
  TensorEntry child = good, other = good, unlabeled = good;
  child.path = "/model/x/y", other.path = "/model/x.b", unlabeled.axes = {};
  refused({good, good});
  refused({good, other, child});
  refused({unlabeled});
  CheckpointMeta meta;
  meta.attributes["step"] = int64_t{1};
  refused({good}, meta);
  meta = {};
  meta.config_toml = std::string("a\0b", 3);
  refused({good}, meta);
  Telemetry telemetry;
  telemetry.train.step = {1};
  refused({good}, {}, telemetry);
  EXPECT_EQ(test::files_in(folder.path()), 0);
}

TEST(CheckpointWriter, NamesAFolderThatIsNotThere) {
  const Error error = error_of([] { test::save_sample("/nonexistent/folder/step-1.h5"); });
  EXPECT_EQ(error.kind(), ErrorKind::cannot_create);
  EXPECT_THAT(error.what(), HasSubstr("/nonexistent/folder/step-1.h5.tmp"));
}

}  // namespace
}  // namespace sw
