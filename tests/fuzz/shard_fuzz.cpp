// A token shard as both readers see it: they refuse it or agree, and never ask for much memory.
#include "libswitch/base/hash.h"
#include "libswitch/data/shard_reader.h"
#include "tests/fuzz/fuzz_target.h"

namespace sw::fuzz {
namespace {

// Tokens and document starts, whatever the blocks of memory they came in.
class Content {
 public:
  void add(const TokenBlock& block) {
    hash_.update(block.raw.data(), block.raw.size());
    hash_.update(block.doc_starts.data(), block.doc_starts.size() * sizeof(uint32_t));
    const bool continues = block.continues;
    hash_.update(&continues, 1);
  }
  Hash128 digest() const { return hash_.digest(); }

 private:
  Hash128Stream hash_;
};

}  // namespace
}  // namespace sw::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw;
  using namespace sw::fuzz;
  const MemoryFile file({reinterpret_cast<const char*>(data), size});
  Content piped, indexed;
  uint64_t tokens = 0;
  const bool pipe_accepts = accepts(size, [&] {
    ShardStream stream(file.rewound(), "pipe");
    TokenBlock block;
    while (stream.next(block)) piped.add(block);
    tokens = stream.tokens();
  });
  const bool index_accepts = accepts(size, [&] {
    const ShardFile shard(file.path());
    for (int64_t b = 0; b < shard.blocks(); ++b) indexed.add(shard.read_block(b));
  });
  if (pipe_accepts && !index_accepts) found("a shard that a pipe can read has no usable index");
  if (pipe_accepts && !(piped.digest() == indexed.digest())) found("pipe and index differ");
  if (pipe_accepts && tokens < 100000) {
    ShardStream stream(file.rewound(), "pipe");
    DocumentReader documents(stream);
    std::vector<int32_t> document;
    uint64_t joined = 0;
    while (documents.next(document)) joined += document.size();
    if (joined != tokens) found("documents have other tokens than blocks");
  }
  return 0;
}
