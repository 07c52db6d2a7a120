#include "libswitch/data/tokenizer.h"

#include <cmath>
#include <cstring>

#include "libswitch/base/hash.h"
#include "libswitch/data/sentencepiece_model.h"
#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::error_of;
using testing::nonsense_text;
using testing::small_tokenizer;

class TokenizerTest : public DataTest {
 protected:
  TrainedVocabulary train(const std::string& text, const VocabularyOptions& options) {
    TextSource source({write("text", text)}, {});
    return train_vocabulary(source, options);
  }
};

TEST_F(TokenizerTest, LaysIdsOutAsT5Does) {
  const Tokenizer& t = small_tokenizer();
  EXPECT_EQ(t.pieces(), 200);
  EXPECT_EQ(t.vocab_size(), 300);
  EXPECT_EQ(t.padded_vocab_size(), 384);
  EXPECT_EQ(t.sentinel(0), 299);
  EXPECT_EQ(t.sentinel(99), 200);
  EXPECT_EQ(t.piece(0), "<pad>");
  EXPECT_EQ(t.piece(1), "</s>");
  EXPECT_EQ(t.piece(2), "<unk>");
  EXPECT_EQ(t.piece(299), "<extra_id_0>");
  EXPECT_EQ(t.piece(200), "<extra_id_99>");
  EXPECT_EQ(t.piece(300), "<300>");
  EXPECT_EQ(t.sha256(), sha256(t.model_bytes().data(), t.model_bytes().size()));
}

TEST_F(TokenizerTest, GivesTextBack) {
  const Tokenizer& t = small_tokenizer();
  const std::string text = nonsense_text(50, 2);
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    const std::vector<int32_t> ids = t.encode(line);
    for (const int32_t id : ids) ASSERT_TRUE(id > 2 && id < 200) << id;
    EXPECT_EQ(t.decode(ids), line);
  }
  EXPECT_TRUE(t.encode("").empty());
  EXPECT_TRUE(t.encode(" \t ").empty());
  EXPECT_EQ(t.encode("\xE4\xB8\xAD").back(), Tokenizer::kUnk);
  t.encode(std::string_view("a\0b", 3));
}

TEST_F(TokenizerTest, ReadsAndWritesSentinels) {
  const Tokenizer& t = small_tokenizer();
  std::vector<int32_t> expected = t.encode("bake li");
  expected.push_back(299);
  t.encode("mo nu", expected);
  expected.push_back(200);
  EXPECT_EQ(t.encode("bake li <extra_id_0> mo nu<extra_id_99>"), expected);
  EXPECT_EQ(t.decode(expected), "bake li <extra_id_0> mo nu <extra_id_99>");
  EXPECT_EQ(t.encode(t.decode(expected)), expected);
  for (const char* text :
       {"<extra_id_100>", "<extra_id_007>", "<extra_id_>", "<extra_id_1", "<extra_id_-1>"}) {
    for (const int32_t id : t.encode(text)) EXPECT_LT(id, 200) << text;
  }
  const std::vector<int32_t> ended = {299, 0, 1, 0};
  EXPECT_EQ(t.decode(ended), "<extra_id_0>");
  const std::vector<int32_t> outside = {-1, 300, 1 << 30};
  EXPECT_FALSE(t.decode(outside).empty());
}

// Text of over a MiB is encoded in parts; the seam must not show.
TEST_F(TokenizerTest, EncodesLongTextInPartsWithoutASeam) {
  std::string line = nonsense_text(1, 3);
  line.back() = ' ';
  std::string text;
  while (text.size() < (size_t{5} << 18)) text += line;
  const std::vector<int32_t> once = small_tokenizer().encode(line),
                             all = small_tokenizer().encode(text);
  ASSERT_EQ(all.size(), once.size() * (text.size() / line.size()));
  for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], once[i % once.size()]) << i;
}

TEST_F(TokenizerTest, TrainingIsDeterministicAndBounded) {
  VocabularyOptions options;
  options.pieces = 120;
  options.sample_bytes = 1 << 16;
  const std::string text = nonsense_text(4000, 4);
  ASSERT_GT(text.size(), size_t{2} << 16);
  const TrainedVocabulary a = train(text, options), b = train(text, options);
  EXPECT_EQ(a.model, b.model);
  EXPECT_LE(a.sampled_bytes, 1 << 16);
  EXPECT_GT(a.sampled_bytes, (1 << 16) - 200);
  options.seed = 1;
  EXPECT_NE(train(text, options).model, a.model) << "another sample";
}

TEST_F(TokenizerTest, TrainsBothKindsOfModel) {
  for (const char* type : {"unigram", "bpe"}) {
    VocabularyOptions options;
    options.pieces = 150;
    options.model_type = type;
    const std::string text = nonsense_text(500, 5);
    const Tokenizer t = Tokenizer::from_bytes(train(text, options).model, type);
    EXPECT_EQ(t.pieces(), 150);
    const std::string line = text.substr(0, text.find('\n'));
    EXPECT_EQ(t.decode(t.encode(line)), line);
  }
}

TEST_F(TokenizerTest, TrainingSaysTheLargestPossibleVocabulary) {
  for (const char* type : {"unigram", "bpe"}) {
    VocabularyOptions options;
    options.pieces = 8000;
    options.model_type = type;
    const std::string message =
        error_of(ErrorKind::usage, [&] { train("hello world\nhello there\n", options); });
    const size_t at = message.find("the largest possible is ");
    ASSERT_NE(at, message.npos) << message;
    // And that size works.
    options.pieces = std::stoi(message.substr(at + 24));
    if (options.pieces >= 16) {
      EXPECT_EQ(
          Tokenizer::from_bytes(train("hello world\nhello there\n", options).model, "x").pieces(),
          options.pieces);
    }
  }
  VocabularyOptions options;
  options.model_type = "word";
  error_of(ErrorKind::usage, [&] { train("x\n", options); });
  error_of(ErrorKind::corrupt, [&] { train("\n \n", {}); });
}

TEST_F(TokenizerTest, RefusesOtherIdLayoutsAndOtherFiles) {
  error_of(ErrorKind::missing, [&] { Tokenizer::load(path("none.model")); });
  for (const std::string& bytes :
       {std::string(), std::string("not a model"), std::string(1000, '\0'),
        std::string("\x0a\xff\xff\xff\xff\x0f", 6)}) {
    error_of(ErrorKind::corrupt, [&] { Tokenizer::from_bytes(bytes, "x.model"); });
  }
  // The same model without its padding piece has other ids.
  std::string model = small_tokenizer().model_bytes();
  const size_t first = static_cast<size_t>(static_cast<unsigned char>(model[1])) + 2;
  const std::string message =
      error_of(ErrorKind::corrupt, [&] { Tokenizer::from_bytes(model.substr(first), "x.model"); });
  EXPECT_NE(message.find("expected T5's 0, 1, 2"), message.npos) << message;
}

// A field of bytes of a protocol buffer.
std::string bytes_field(char number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  size_t n = bytes.size();
  for (; n >= 0x80; n >>= 7) out += static_cast<char>(n | 0x80);
  return out + static_cast<char>(n) + bytes;
}

std::string piece_field(const std::string& text, float score) {
  return bytes_field(
      1, bytes_field(1, text) + "\x15" + std::string(reinterpret_cast<const char*>(&score), 4));
}

// A normaliser whose character map has 256 units, zero but for the first two.
std::string character_map_field(uint32_t first, uint32_t second) {
  std::vector<uint32_t> words(257);
  words[0] = 256 * 4;
  words[1] = first, words[2] = second;
  std::string map(reinterpret_cast<const char*>(words.data()), words.size() * 4);
  return bytes_field(3, bytes_field(2, map + std::string(4, '\0')));
}

TEST_F(TokenizerTest, BoundsOfTheModelFileAreKept) {
  const auto check = [](const std::string& bytes) { check_sentencepiece_model(bytes, "x.model"); };
  check(piece_field("good", -1.0f));
  check(piece_field(std::string(512, 'x'), 0.0f));
  EXPECT_NE(error_of(ErrorKind::corrupt, [&] { check(piece_field(std::string(513, 'x'), 0.0f)); })
                .find("over 512 bytes"),
            std::string::npos);
  error_of(ErrorKind::corrupt, [&] { check(piece_field("x", NAN)); });
  error_of(ErrorKind::corrupt, [&] { check(piece_field("x", INFINITY)); });
  error_of(ErrorKind::corrupt, [&] { check(piece_field("", 0.0f)); });
  error_of(ErrorKind::corrupt, [&] { check(piece_field(std::string("\0o", 2), 0.0f)); });
  error_of(ErrorKind::corrupt, [&] { check(piece_field(std::string("o\0", 2), 0.0f)); });
  std::string many;
  for (int i = 0; i < 1000001; ++i) many += piece_field("x", 0.0f);
  error_of(ErrorKind::corrupt, [&] { check(many); });
}

TEST_F(TokenizerTest, LeavesOfTheCharacterMapPointIntoItMarkedOrNot) {
  const auto check = [](uint32_t first, uint32_t second) {
    check_sentencepiece_model(piece_field("x", 0.0f) + character_map_field(first, second), "x");
  };
  constexpr uint32_t kLeaf = 1u << 31, kHasLeaf = 1u << 8, kOffsetOne = 1u << 10;
  check(0, 0);
  check(kHasLeaf | kOffsetOne, kLeaf | 3);
  check(kHasLeaf | kOffsetOne, 3);
  error_of(ErrorKind::corrupt, [&] { check(0, kLeaf | 4); });
  error_of(ErrorKind::corrupt, [&] { check(kHasLeaf | kOffsetOne, 4); });
  error_of(ErrorKind::corrupt, [&] { check(kHasLeaf | kOffsetOne, kLeaf | 4); });
}

// A bit of the character map flipped, SentencePiece would walk out of its tables: the scan must
// refuse every model that it cannot show to be safe, and what passes must encode without a crash.
TEST_F(TokenizerTest, DamagedModelsAreRefusedOrWork) {
  const std::string model = small_tokenizer().model_bytes();
  RngStream rng(rng_key(6, RngPurpose::test));
  int refused = 0;
  for (int round = 0; round < 200; ++round) {
    std::string bad = model;
    const size_t at = round < 100 ? rng.below(3000) : rng.below(bad.size());
    bad[at] = static_cast<char>(bad[at] ^ (1 << rng.below(8)));
    try {
      const Tokenizer t = Tokenizer::from_bytes(bad, "bad.model");
      t.decode(t.encode("bake li \xC3\xA9\xE2\x84\xA2 mo"));
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(ErrorKind::corrupt))
          << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 10);
}

}  // namespace
}  // namespace sw
