#include "libswitch/data/encode_corpus.h"

#include <nlohmann/json.hpp>

#include "libswitch/data/shard_reader.h"
#include "libswitch/data/shard_vocabulary.h"
#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::error_of;
using testing::nonsense_text;
using testing::small_tokenizer;

class EncodeCorpus : public DataTest {
 protected:
  std::string encode(const std::vector<std::filesystem::path>& files, int threads,
                     EncodeTotals* totals = nullptr) {
    TextSource source(files, {});
    std::string bytes;
    ShardWriter writer(
        [&](const void* data, size_t n) { bytes.append(static_cast<const char*>(data), n); },
        shard_header(small_tokenizer(), R"({"tool":"test"})", path("nonsense.model").string()),
        threads);
    const EncodeTotals result = encode_corpus(source, small_tokenizer(), writer, threads);
    writer.finish();
    if (totals != nullptr) *totals = result;
    return bytes;
  }
};

TEST_F(EncodeCorpus, GivesTheSameBytesOnAnyNumberOfThreads) {
  const std::string text = nonsense_text(30000, 7);
  ASSERT_GT(text.size(), size_t{1} << 20);
  const auto a = write("a", text), b = write("b", nonsense_text(100, 8));
  EncodeTotals totals;
  const std::string one = encode({a, b}, 1, &totals);
  EXPECT_EQ(totals.documents, 30100u);
  EXPECT_EQ(one, encode({a, b}, 2));
  EXPECT_EQ(one, encode({a, b}, 5));
  const ShardFile shard(write("out.swt", one));
  EXPECT_EQ(shard.documents(), totals.documents);
  EXPECT_EQ(shard.tokens(), totals.tokens);
  EXPECT_EQ(shard.header().vocab_sha256, small_tokenizer().sha256());
}

TEST_F(EncodeCorpus, DecodesBackToTheText) {
  const std::string text = nonsense_text(500, 9);
  const FileDescriptor fd = open_for_read(write("out.swt", encode({write("a", text)}, 2)));
  ShardStream stream(fd.get(), "out.swt");
  DocumentReader reader(stream);
  std::string back;
  std::vector<int32_t> document;
  while (reader.next(document)) back += small_tokenizer().decode(document) + "\n";
  EXPECT_EQ(back, text);
}

TEST_F(EncodeCorpus, ThrowsTheFirstFaultOfTheText) {
  std::string text = nonsense_text(20000, 10);
  text += "bad \xFF one\n" + nonsense_text(20000, 11) + "bad \xFE two\n";
  const auto file = write("a", text);
  for (int round = 0; round < 3; ++round) {
    const std::string message = error_of(ErrorKind::corrupt, [&] { encode({file}, 4); });
    EXPECT_NE(message.find("a:20001: byte 5"), message.npos) << message;
  }
  EXPECT_NE(error_of(ErrorKind::corrupt, [&] { encode({write("x", "BZh91AY&SY......")}, 2); })
                .find("bzip2"),
            std::string::npos);
}

TEST_F(EncodeCorpus, TheVocabularyOfAShardIsFound) {
  const auto shard = write("out.swt", encode({write("a", "bake limo\n")}, 1));
  const ShardHeader header = ShardFile(shard).header();
  error_of(ErrorKind::missing, [&] { load_shard_vocabulary(header, shard); });
  write("nonsense.model", "not a model");
  error_of(ErrorKind::missing, [&] { load_shard_vocabulary(header, shard); });
  write("nonsense.model", small_tokenizer().model_bytes());
  EXPECT_EQ(load_shard_vocabulary(header, shard).sha256(), small_tokenizer().sha256());
  // Moved together with the shard.
  std::filesystem::create_directory(path("elsewhere"));
  std::filesystem::rename(path("nonsense.model"), path("elsewhere") / "nonsense.model");
  EXPECT_EQ(load_shard_vocabulary(header, path("elsewhere") / "out.swt").pieces(), 200);
  ShardHeader other = header;
  other.vocab_sha256[0] ^= 1;
  error_of(ErrorKind::corrupt,
           [&] { load_shard_vocabulary(other, shard, path("elsewhere") / "nonsense.model"); });
}

TEST_F(EncodeCorpus, TheSegmentIdNamesTheWorkAndNotThePlaceOfTheVocabulary) {
  const Tokenizer& t = small_tokenizer();
  const ShardHeader a = shard_header(t, R"({"sources":["a"]})", "/x/v.model");
  const ShardHeader b = shard_header(t, R"({"sources":["a"]})", "/y/v.model");
  const ShardHeader c = shard_header(t, R"({"sources":["b"]})", "/x/v.model");
  EXPECT_EQ(a.segment_id, b.segment_id);
  EXPECT_NE(a.segment_id, c.segment_id);
  EXPECT_EQ(nlohmann::json::parse(a.json)["vocab"], "/x/v.model");
}

}  // namespace
}  // namespace sw
