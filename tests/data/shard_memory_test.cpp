// What a shard claims of its sizes costs no memory: never more than 64 MiB and twice the file, and
// 1 MiB of buffers of the reader's own.
#include <cstring>

#include "libswitch/data/shard_reader.h"
#include "libswitch/data/shard_repair.h"
#include "tests/data/data_test_support.h"
#include "tests/support/allocation_peak.h"

namespace sw {
namespace {

using testing::DataTest;
using testing::plain_header;

constexpr int64_t kOwn = int64_t{1} << 20;

class ShardMemory : public DataTest {
 protected:
  // The most memory that each way of reading the file takes at a time.
  int64_t peak_of_reading(const std::filesystem::path& file) {
    int64_t most = 0;
    const auto measure = [&](const auto& read) {
      const test::AllocationPeak peak;
      try {
        read();
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::corrupt) << error.what();
      }
      most = std::max(most, peak.bytes());
    };
    measure([&] {
      const FileDescriptor fd = open_for_read(file);
      ShardStream stream(fd.get(), "pipe");
      TokenBlock block;
      while (stream.next(block)) ++blocks_read;
    });
    measure([&] {
      const ShardFile shard(file);
      for (int64_t b = 0; b < shard.blocks(); ++b) shard.read_block(b), ++blocks_read;
    });
    measure([&] { repair_shard(file); });
    std::filesystem::remove(file.string() + ".damaged");
    return most;
  }

  int blocks_read = 0;
};

std::string text(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }

// Blocks of 64 MiB of zeros, less what the starts take, in a file of some thousand bytes.
TEST_F(ShardMemory, OfTheLargestBlocksIsBounded) {
  for (const uint32_t vocab : {1000u, 70000u}) {
    for (const uint32_t starts : {1u, 4000000u}) {
      ShardHeader header = plain_header(vocab, 1);
      const auto width = static_cast<uint32_t>(header.token_bytes);
      header.block_tokens_max = (uint32_t{64} << 20) / width;
      ShardBlockFrame block;
      block.n_tokens = header.block_tokens_max - 4 / width * starts;
      block.n_doc_starts = starts;
      for (uint32_t i = 0; i < starts; ++i) block.doc_starts.push_back(i);
      const Bytes data = encode_block_data(Bytes(size_t{block.n_tokens} * width), 1, block);
      std::string bytes = text(serialize(header));
      ShardIndex index;
      index.segment_id = header.segment_id;
      for (int i = 0; i < 3; ++i) {
        block.ordinal = static_cast<uint64_t>(i);
        index.rows.push_back(index_row(block, bytes.size()));
        index.tokens += block.n_tokens, index.documents += starts;
        bytes += text(serialize(block)) + text(data);
      }
      index.segment_bytes =
          bytes.size() + static_cast<size_t>(kIndexFrameBytes + 3 * kIndexRowBytes);
      bytes += text(serialize(index));
      const auto file = write("large.swt", bytes);
      blocks_read = 0;
      const int64_t peak = peak_of_reading(file);
      EXPECT_GE(peak, int64_t{block.n_tokens} * width);  // it is counted
      EXPECT_LE(peak, (int64_t{64} << 20) + 2 * static_cast<int64_t>(bytes.size()) + kOwn);
      EXPECT_EQ(blocks_read, 6);
    }
  }
}

TEST_F(ShardMemory, IsNotTakenForClaimsWithoutBytes) {
  ShardHeader header = plain_header(1000, 1);
  header.block_tokens_max = uint32_t{32} << 20;
  const std::string head = text(serialize(header));
  ShardBlockFrame block;
  block.n_tokens = header.block_tokens_max / 2;
  block.n_doc_starts = block.n_tokens;  // and not one of them is there
  block.comp_bytes = uint32_t{32} << 20;
  EXPECT_LE(peak_of_reading(write("starts.swt", head + text(serialize(block)))), kOwn);
  block.n_doc_starts = 0;
  EXPECT_LE(peak_of_reading(write("data.swt", head + text(serialize(block)))), kOwn);
  std::string trailer = text(serialize(ShardIndex{}));
  const uint32_t rows = 0xFFFFFFFFu;
  std::memcpy(trailer.data() + trailer.size() - 48, &rows, 4);
  EXPECT_LE(peak_of_reading(write("rows.swt", head + trailer)), kOwn);
  std::string frame(8, '\0');
  const uint32_t fields[2] = {kSkippableMagic, 0xFFFFFFF0u};
  std::memcpy(frame.data(), fields, 8);
  for (const char* tag : {"SWTSHDR1", "SWTSBLK1", "SWTSIDX1", "unknown1"}) {
    EXPECT_LE(peak_of_reading(write("frame.swt", head + frame + tag)), kOwn) << tag;
    EXPECT_LE(peak_of_reading(write("first.swt", frame + tag)), kOwn) << tag;
  }
}

}  // namespace
}  // namespace sw
