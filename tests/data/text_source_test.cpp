#include "libswitch/data/text_source.h"

#include <zlib.h>
#include <zstd.h>

#include "libswitch/data/utf8.h"
#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::error_of;

std::string gzip(const std::string& text) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

class TextSourceTest : public DataTest {
 protected:
  std::vector<std::string> read(const std::vector<std::filesystem::path>& files,
                                TextFormat format = TextFormat::lines,
                                const std::string& field = "text") {
    TextOptions options;
    options.format = format;
    options.json_field = field;
    options.max_document_bytes = 1000000;
    TextSource source(files, options);
    std::vector<std::string> documents;
    std::string text;
    while (source.next(text)) documents.push_back(text);
    return documents;
  }
};
using Texts = std::vector<std::string>;

TEST_F(TextSourceTest, ReadsADocumentPerLine) {
  const auto a = write("a", "one\n\ntwo words\r\n  \n"), b = write("b", "\xEF\xBB\xBFthree"),
             c = write("c", "");
  EXPECT_EQ(read({a, b, c}), (Texts{"one", "two words", "three"}));
}

TEST_F(TextSourceTest, ReadsDocumentsBetweenBlankLines) {
  const auto a = write("a", "\n\none\nmore\n\n \ntwo\n"), b = write("b", "three\nand\n");
  EXPECT_EQ(read({a, b}, TextFormat::blank_lines), (Texts{"one\nmore", "two", "three\nand"}));
}

TEST_F(TextSourceTest, ReadsAFieldOfJsonLines) {
  const auto a = write("a", R"({"id": 1, "text": "one \"q\"\nline\u00e9", "deep": {"text": "no"}}

{"text": "old", "x": [1, {"text": "no"}], "text": "two"}
{"text": ""}
)");
  EXPECT_EQ(read({a}, TextFormat::json_lines), (Texts{"one \"q\"\nline\u00e9", "two"}));
  EXPECT_EQ(read({write("b", R"({"body": "x"})")}, TextFormat::json_lines, "body"), (Texts{"x"}));
}

TEST_F(TextSourceTest, TellsWhereJsonIsWrong) {
  const auto message = [&](const std::string& line) {
    const auto file = write("a", "{\"text\": \"ok\"}\n" + line + "\n");
    return error_of(ErrorKind::corrupt, [&] { read({file}, TextFormat::json_lines); });
  };
  for (const char* line :
       {"{\"text\": \"x\"", "{\"text\": \"x\"} y", "[", "nonsense", "{\"text\": \"\\ud800\"}"}) {
    EXPECT_NE(message(line).find("a:2: malformed JSON"), std::string::npos) << message(line);
  }
  EXPECT_NE(message("[1]").find("a:2: expected a JSON object, got an array"), std::string::npos);
  EXPECT_NE(message("7").find("a:2: expected a JSON object, got a value"), std::string::npos);
  EXPECT_NE(message("{\"text\": 7}").find("a:2: field \"text\" is a number"), std::string::npos);
  EXPECT_NE(message("{\"text\": null}").find("is null"), std::string::npos);
  EXPECT_NE(message("{\"text\": {}}").find("is an object"), std::string::npos);
  const std::string missing = message("{\"id\": 1, \"txt\": \"x\"}");
  EXPECT_NE(missing.find("no field \"text\""), std::string::npos) << missing;
  EXPECT_NE(missing.find("id, txt"), std::string::npos) << missing;
  EXPECT_NE(missing.find("did you mean 'txt'"), std::string::npos) << missing;
  // A line as deep as it is long must not exhaust the stack.
  EXPECT_NE(message(std::string(500000, '[')).find("malformed"), std::string::npos);
}

TEST_F(TextSourceTest, ReadsCompressedTextOfSeveralMembers) {
  std::string text;
  for (int i = 0; i < 60000; ++i) text += "line " + std::to_string(i * 7919 % 60000) + "\n";
  const Texts expected = read({write("plain", text)});
  ASSERT_EQ(expected.size(), 60000u);
  const std::string first = text.substr(0, 100001), second = text.substr(100001);
  EXPECT_EQ(read({write("t.gz", gzip(first) + gzip(second))}), expected);
  EXPECT_EQ(read({write("t.zst", zstd(first) + zstd(second))}), expected);
  EXPECT_TRUE(read({write("e.gz", gzip("")), write("e.zst", zstd(""))}).empty());
}

TEST_F(TextSourceTest, EveryTruncationOfAnArchiveIsAnError) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "line " + std::to_string(i * i) + "\n";
  for (const std::string& archive : {gzip(text), zstd(text)}) {
    for (size_t n = 4; n < archive.size(); ++n) {
      const auto file = write("cut", archive.substr(0, n));
      const std::string message = error_of(ErrorKind::corrupt, [&] { read({file}); });
      ASSERT_NE(message.find("truncated"), message.npos) << n << ": " << message;
    }
  }
}

TEST_F(TextSourceTest, DamagedArchivesAndOtherFormatsAreNamed) {
  std::string archive = gzip("some text to damage, long enough to have a middle\n");
  archive[archive.size() - 6] ^= 1;
  EXPECT_NE(error_of(ErrorKind::corrupt, [&] { read({write("a.gz", archive)}); }).find("a.gz"),
            std::string::npos);
  error_of(ErrorKind::corrupt, [&] { read({write("b.gz", gzip("x\n") + "tail")}); });
  EXPECT_NE(error_of(ErrorKind::corrupt,
                     [&] {
                       read({write("a.xz", std::string("\xfd"
                                                       "7zXZ\0abcdefgh",
                                                       14))});
                     })
                .find("xz -dc"),
            std::string::npos);
  const std::string shard = testing::shard_bytes({{5}}, testing::plain_header(100, 8));
  EXPECT_NE(
      error_of(ErrorKind::corrupt, [&] { read({write("a.swt", shard)}); }).find("token shard"),
      std::string::npos);
  error_of(ErrorKind::missing, [&] { read({path("none")}); });
}

TEST_F(TextSourceTest, RefusesBytesThatAreNotUtf8) {
  const auto file = write("latin", "fine\ncaf\xE9\n");
  const std::string message = error_of(ErrorKind::corrupt, [&] { read({file}); });
  EXPECT_NE(message.find("latin:2: byte 4 of the line (0xE9) is not UTF-8"), message.npos)
      << message;
}

TEST_F(TextSourceTest, RefusesLinesOfAbsurdSize) {
  const auto file = write("long", "fine\n" + std::string(1000001, 'x') + "\nmore\n");
  EXPECT_NE(error_of(ErrorKind::corrupt, [&] { read({file}); }).find("long:2: line is longer"),
            std::string::npos);
  std::string blank = "fine\n\n";
  for (int i = 0; i < 1000; ++i) blank += std::string(1001, 'x') + "\n";
  const auto other = write("blank", blank);
  EXPECT_NE(error_of(ErrorKind::corrupt, [&] { read({other}, TextFormat::blank_lines); })
                .find("blank:3: document is longer"),
            std::string::npos);
}

TEST(Utf8, AcceptsWhatIsWellFormedOnly) {
  EXPECT_EQ(find_invalid_utf8(""), -1);
  EXPECT_EQ(find_invalid_utf8("plain ascii, longer than eight"), -1);
  EXPECT_EQ(find_invalid_utf8("\u00e9\u20ac\U0001F600\U0010FFFF\uD7FF\uE000"), -1);
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xFF"}) {
    EXPECT_EQ(find_invalid_utf8(bad), 0) << bad;
    EXPECT_EQ(find_invalid_utf8(std::string("12345678abc") + bad), 11) << bad;
  }
}

}  // namespace
}  // namespace sw
