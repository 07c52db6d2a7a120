#include <fcntl.h>
#include <sys/mman.h>
#include <zstd.h>

#include <cstring>

#include "libswitch/base/hash.h"
#include "libswitch/data/shard_reader.h"
#include "libswitch/data/shard_repair.h"
#include "tests/data/data_test_support.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::error_of;
using testing::plain_header;
using testing::random_documents;
using testing::shard_bytes;

using Documents = std::vector<std::vector<int32_t>>;

// An unlinked file in memory: reading it is as quick as reading a pipe, and it can be reopened.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : fd_(::memfd_create("shard", MFD_CLOEXEC)) {
    set(content);
  }
  void set(std::string_view content) {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(content.size())), 0);
    pwrite_all(fd_.get(), content.data(), content.size(), 0, "memory");
  }
  void put(size_t offset, char byte) { pwrite_all(fd_.get(), &byte, 1, offset, "memory"); }
  int rewound() {
    ::lseek(fd_.get(), 0, SEEK_SET);
    return fd_.get();
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

 private:
  FileDescriptor fd_;
};

Documents read_stream(int fd) {
  ShardStream stream(fd, "pipe");
  DocumentReader reader(stream);
  Documents documents;
  std::vector<int32_t> document;
  while (reader.next(document)) documents.push_back(document);
  return documents;
}

std::vector<int32_t> flat(const Documents& documents) {
  std::vector<int32_t> tokens;
  for (const auto& d : documents) tokens.insert(tokens.end(), d.begin(), d.end());
  return tokens;
}

std::vector<int32_t> read_at_random(const std::string& path) {
  const ShardFile file(path);
  std::vector<std::vector<int32_t>> blocks(static_cast<size_t>(file.blocks()));
  for (int64_t b = file.blocks(); b-- > 0;) {
    const TokenBlock block = file.read_block(b);
    blocks[static_cast<size_t>(b)].resize(static_cast<size_t>(block.size()));
    block.copy(0, block.size(), blocks[static_cast<size_t>(b)].data());
  }
  return flat(blocks);
}

class Shard : public DataTest {};

TEST_F(Shard, GivesDocumentsBackThroughPipeAndIndex) {
  for (const int vocab : {1000, 65536, 65537, 250100}) {
    for (const uint32_t block_tokens : {1u, 7u, 64u, 1000u, 262144u}) {
      const Documents documents = random_documents(60, 90, vocab, block_tokens);
      MemoryFile file(
          shard_bytes(documents, plain_header(static_cast<uint32_t>(vocab), block_tokens)));
      EXPECT_EQ(read_stream(file.rewound()), documents);
      EXPECT_EQ(read_at_random(file.path()), flat(documents));
      const ShardFile opened(file.path());
      EXPECT_EQ(opened.documents(), 60u);
      EXPECT_EQ(opened.tokens(), flat(documents).size());
      EXPECT_EQ(opened.header().token_bytes, vocab <= 65536 ? 2 : 4);
    }
  }
}

TEST_F(Shard, OfNothingIsValid) {
  MemoryFile file(shard_bytes({}, plain_header(100, 16)));
  EXPECT_TRUE(read_stream(file.rewound()).empty());
  EXPECT_EQ(ShardFile(file.path()).tokens(), 0u);
  EXPECT_EQ(verify_shard(file.path()).blocks, 0);
}

TEST_F(Shard, DropsDocumentsWithoutTokens) {
  MemoryFile file(shard_bytes({{}, {5}, {}, {6, 7}, {}}, plain_header(100, 16)));
  EXPECT_EQ(read_stream(file.rewound()), (Documents{{5}, {6, 7}}));
}

TEST_F(Shard, DoesNotDependOnThreads) {
  const Documents documents = random_documents(300, 100, 5000, 3);
  const ShardHeader header = plain_header(5000, 256);
  EXPECT_EQ(shard_bytes(documents, header, 1), shard_bytes(documents, header, 4));
}

TEST_F(Shard, DecompressesToTheFlatTokens) {
  const Documents documents = random_documents(40, 50, 5000, 4);
  const std::string bytes = shard_bytes(documents, plain_header(5000, 128)) +
                            shard_bytes(documents, plain_header(5000, 128));
  // What `zstd -dc` does: frames in order, skippable ones passed over.
  std::string out(1 << 20, '\0');
  const size_t n = ZSTD_decompress(out.data(), out.size(), bytes.data(), bytes.size());
  ASSERT_FALSE(ZSTD_isError(n)) << ZSTD_getErrorName(n);
  const std::vector<int32_t> tokens = flat(documents);
  ASSERT_EQ(n, 4 * tokens.size());
  for (size_t i = 0; i < 2 * tokens.size(); ++i) {
    uint16_t token;
    std::memcpy(&token, out.data() + 2 * i, 2);
    ASSERT_EQ(token, tokens[i % tokens.size()]);
  }
}

TEST_F(Shard, ConcatenatedStaysValid) {
  const Documents a = random_documents(30, 50, 5000, 5), b = random_documents(20, 50, 5000, 6);
  const ShardHeader header = plain_header(5000, 100);
  const std::string empty = shard_bytes({}, header);
  MemoryFile file(shard_bytes(a, header) + empty + shard_bytes(b, header));
  Documents both = a;
  both.insert(both.end(), b.begin(), b.end());
  EXPECT_EQ(read_stream(file.rewound()), both);
  EXPECT_EQ(read_at_random(file.path()), flat(both));
  EXPECT_EQ(ShardFile(file.path()).segments(), 3);
  EXPECT_EQ(verify_shard(file.path()).documents, 50u);
}

TEST_F(Shard, RefusesSegmentsOfDifferentVocabularies) {
  ShardHeader other = plain_header(5000, 100);
  other.vocab_sha256[0] ^= 1;
  MemoryFile file(shard_bytes({{5, 6}}, plain_header(5000, 100)) + shard_bytes({{5, 6}}, other));
  for (const auto& message : {error_of(ErrorKind::corrupt, [&] { read_stream(file.rewound()); }),
                              error_of(ErrorKind::corrupt, [&] { ShardFile{file.path()}; })}) {
    EXPECT_NE(message.find("segment 1"), message.npos) << message;
    EXPECT_NE(message.find("vocabulary"), message.npos) << message;
  }
}

TEST_F(Shard, PassesOverForeignFramesOfAnySmallSize) {
  const auto text = [](const Bytes& bytes) { return std::string(bytes.begin(), bytes.end()); };
  const ShardHeader header = plain_header(100, 8);
  ShardBlockFrame block;
  block.n_tokens = 2;
  block.n_doc_starts = 1;
  block.doc_starts = {0};
  const uint8_t raw[] = {5, 0, 6, 0};
  const std::string data = text(encode_block_data(raw, 3, block));
  for (const uint32_t size : {0u, 1u, 7u, 8u, 100u, 1u << 20}) {
    std::string bytes = text(serialize(header));
    bytes.resize(bytes.size() + 8 + size, 'x');
    const uint32_t fields[2] = {0x184D2A5B, size};
    std::memcpy(bytes.data() + bytes.size() - 8 - size, fields, 8);
    ShardIndex index;
    index.rows = {index_row(block, bytes.size())};
    index.tokens = 2, index.documents = 1, index.segment_id = header.segment_id;
    bytes += text(serialize(block)) + data;
    index.segment_bytes = bytes.size() + kIndexFrameBytes + kIndexRowBytes;
    bytes += text(serialize(index));
    MemoryFile file(bytes);
    EXPECT_EQ(read_stream(file.rewound()), (Documents{{5, 6}}));
    EXPECT_EQ(read_at_random(file.path()), (std::vector<int32_t>{5, 6}));
  }
  const std::string bytes = shard_bytes({{5, 6, 7}, {8}}, header);
  std::string huge(8, '\0');
  const uint32_t fields[2] = {0x184D2A50, (1u << 20) + 1};
  std::memcpy(huge.data(), fields, 8);
  MemoryFile file(bytes.substr(0, serialize(header).size()) + huge + std::string(fields[1], 'x'));
  const std::string message = error_of(ErrorKind::corrupt, [&] { read_stream(file.rewound()); });
  EXPECT_NE(message.find("unknown frame"), message.npos) << message;
}

TEST_F(Shard, EveryTruncationIsAnErrorThatNamesThePlace) {
  const std::string bytes = shard_bytes(random_documents(6, 9, 500, 7), plain_header(500, 8));
  MemoryFile file(bytes);
  for (size_t n = 0; n < bytes.size(); ++n) {
    file.set(std::string_view(bytes).substr(0, n));
    for (const auto& message :
         {error_of(ErrorKind::corrupt, [&] { read_stream(file.rewound()); }),
          error_of(ErrorKind::corrupt, [&] { read_at_random(file.path()); })}) {
      ASSERT_NE(message.find("segment 0"), message.npos) << n << message;
      ASSERT_NE(message.find("offset "), message.npos) << n << message;
    }
  }
  std::printf("counted: every truncation of a shard, %zu: refused by pipe and index\n",
              bytes.size());
}

TEST_F(Shard, EveryFlippedBitIsAnErrorThatNamesThePlace) {
  const ShardHeader header = plain_header(500, 8);
  const std::string bytes = shard_bytes(random_documents(5, 9, 500, 8), header) +
                            shard_bytes(random_documents(3, 9, 500, 9), header);
  MemoryFile file(bytes);
  const auto expect_error = [&](const std::string& message, size_t at) {
    ASSERT_NE(message.find("segment "), message.npos) << at << message;
    ASSERT_NE(message.find("offset "), message.npos) << at << message;
  };
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      file.put(at, static_cast<char>(bytes[at] ^ (1 << bit)));
      expect_error(error_of(ErrorKind::corrupt, [&] { read_stream(file.rewound()); }), at);
      expect_error(error_of(ErrorKind::corrupt, [&] { read_at_random(file.path()); }), at);
      if (HasFailure()) return;
    }
    file.put(at, bytes[at]);
  }
  std::printf("counted: every flipped bit of a shard, %zu: refused by pipe and index\n",
              8 * bytes.size());
}

// Bytes cut out, doubled and overwritten in the middle: no crash, no wrong tokens.
TEST_F(Shard, DamagedAtRandomIsAnError) {
  const std::string bytes = shard_bytes(random_documents(50, 40, 500, 10), plain_header(500, 64));
  RngStream rng(rng_key(11, RngPurpose::test));
  MemoryFile file(bytes);
  for (int round = 0; round < 400; ++round) {
    std::string bad = bytes;
    const size_t at = rng.below(bad.size()), n = 1 + rng.below(200);
    switch (rng.below(3)) {
      case 0: bad.erase(at, n); break;
      case 1: bad.insert(at, bad.substr(at, n)); break;
      default:
        for (size_t i = at; i < std::min(bad.size(), at + n); ++i) {
          bad[i] = static_cast<char>(rng.next_u32());
        }
    }
    if (bad == bytes) continue;
    file.set(bad);
    error_of(ErrorKind::corrupt, [&] { read_stream(file.rewound()); });
    error_of(ErrorKind::corrupt, [&] { read_at_random(file.path()); });
  }
}

TEST_F(Shard, ThatWasRecompressedIsNamedAsSuch) {
  std::string out(ZSTD_compressBound(6), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), "abcdef", 6, 3));
  MemoryFile file(out);
  for (const auto& message : {error_of(ErrorKind::corrupt, [&] { read_stream(file.rewound()); }),
                              error_of(ErrorKind::corrupt, [&] { ShardFile{file.path()}; })}) {
    EXPECT_NE(message.find("recompressing"), message.npos) << message;
  }
  MemoryFile text("once upon a time there was no shard\n");
  EXPECT_NE(error_of(ErrorKind::corrupt, [&] { ShardFile{text.path()}; }).find("not a token shard"),
            std::string::npos);
  error_of(ErrorKind::missing, [&] { ShardFile{path("none.swt")}; });
}

TEST_F(Shard, TokensOutsideTheVocabularyAreRefused) {
  ShardHeader header = plain_header(500, 8);
  ShardBlockFrame block;
  block.n_tokens = 2;
  const uint8_t raw[] = {1, 0, 244, 1};  // 1 and 500
  const Bytes data = encode_block_data(raw, 3, block);
  const std::string message = error_of(ErrorKind::corrupt, [&] {
    decode_block(block, data, header, {"x.swt", 0, 0, 140});
  });
  EXPECT_EQ(message,
            "x.swt: segment 0, block 0, offset 140: data: token 500 in a vocabulary of 500");
}

// In a longer form the frame would have another size than its index says.
TEST_F(Shard, DocumentStartsInALongFormAreRefused) {
  ShardBlockFrame block;
  block.n_tokens = 2;
  block.n_doc_starts = 2;
  block.comp_bytes = 9;
  block.doc_starts = {0, 1};
  const ShardHeader header = plain_header(500, 8);
  Bytes frame = serialize(block);
  ASSERT_NO_THROW(parse_block(frame, header, {}));
  frame[4] += 1, frame[44] += 1;  // one byte longer:
  frame[57] = 0x81;               // the 1
  frame.insert(frame.begin() + 58, 0);
  const uint32_t check = xxh3_32(frame.data() + 8, frame.size() - 12);
  std::memcpy(frame.data() + frame.size() - 4, &check, 4);
  const std::string message = error_of(ErrorKind::corrupt, [&] { parse_block(frame, header, {}); });
  EXPECT_NE(message.find("shortest form"), message.npos) << message;
}

TEST_F(Shard, RepairKeepsWhatIsWholeAfterEveryTruncation) {
  const Documents documents = random_documents(8, 9, 500, 12);
  const std::vector<int32_t> tokens = flat(documents);
  const ShardHeader header = plain_header(500, 8);
  const std::string bytes = shard_bytes(documents, header);
  const size_t header_bytes = serialize(header).size();
  const ShardFile whole(write("whole.swt", bytes));
  EXPECT_FALSE(repair_shard(path("whole.swt")).changed);
  EXPECT_FALSE(std::filesystem::exists(path("whole.swt.damaged")));
  for (size_t n = 0; n < bytes.size(); n += 7) {
    const auto file = write("cut.swt", bytes.substr(0, n));
    if (n < header_bytes) {
      error_of(ErrorKind::corrupt, [&] { repair_shard(file); });
      EXPECT_EQ(read_file(file).size(), n);
      continue;
    }
    size_t kept = 0;
    for (int64_t b = 0; b < whole.blocks(); ++b) {
      const ShardIndexRow& row = whole.row(b);
      if (row.offset + row.frame_bytes + row.comp_bytes <= n) kept += row.n_tokens;
    }
    const RepairReport report = repair_shard(file);
    EXPECT_TRUE(report.changed);
    EXPECT_EQ(report.kept_tokens, kept);
    EXPECT_EQ(read_file(report.original), bytes.substr(0, n));
    std::filesystem::remove(report.original);
    verify_shard(file);
    EXPECT_EQ(
        read_at_random(file),
        std::vector<int32_t>(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(kept)));
  }
}

TEST_F(Shard, RepairDropsADamagedBlockAndKeepsTheRest) {
  const Documents documents = random_documents(8, 9, 500, 12);
  std::string bytes = shard_bytes(documents, plain_header(500, 8));
  const ShardFile whole(write("whole.swt", bytes));
  ASSERT_GE(whole.blocks(), 4);
  const ShardIndexRow row = whole.row(1);
  bytes[row.offset + row.frame_bytes + row.comp_bytes / 2] ^= 4;
  const auto file = write("bad.swt", bytes);
  const RepairReport report = repair_shard(file);
  EXPECT_EQ(report.dropped_blocks, 1);
  std::vector<int32_t> expected = flat(documents);
  expected.erase(expected.begin() + 8, expected.begin() + 16);
  EXPECT_EQ(read_at_random(file), expected);
  verify_shard(file);
  // A second repair must not overwrite what the first one kept.
  write("bad.swt", bytes);
  error_of(ErrorKind::cannot_create, [&] { repair_shard(file); });
}

TEST_F(Shard, SpoolingCopiesTheBytesOrNothing) {
  const std::string bytes = shard_bytes(random_documents(8, 9, 500, 13), plain_header(500, 8));
  MemoryFile whole(bytes);
  const ShardTotals totals = spool_shard(whole.rewound(), "pipe", path("copy.swt"));
  EXPECT_EQ(read_file(path("copy.swt")), bytes);
  EXPECT_EQ(totals.documents, 8u);
  EXPECT_EQ(totals.bytes, bytes.size());
  MemoryFile cut(bytes.substr(0, bytes.size() - 1));
  error_of(ErrorKind::corrupt, [&] { spool_shard(cut.rewound(), "pipe", path("cut.swt")); });
  EXPECT_FALSE(std::filesystem::exists(path("cut.swt")));
}

TEST_F(Shard, HeaderSurvivesTheRoundTrip) {
  ShardHeader header = plain_header(40000, 1000);
  header.flags = ShardHeader::kEosStored;
  header.bos = 7;
  const ShardHeader back = parse_header(serialize(header), {});
  EXPECT_EQ(serialize(back), serialize(header));
  EXPECT_EQ(back.bos, 7u);
  EXPECT_EQ(back.json, header.json);
  EXPECT_EQ(static_cast<int64_t>(serialize(header).size()),
            kHeaderFrameBytes + static_cast<int64_t>(header.json.size()));
}

}  // namespace
}  // namespace sw
