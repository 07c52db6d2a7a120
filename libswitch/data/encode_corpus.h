// Text to shard on all cores, in order.
#pragma once

#include <cstdint>
#include <functional>

#include "libswitch/data/shard_writer.h"
#include "libswitch/data/text_source.h"
#include "libswitch/data/tokenizer.h"

namespace sw {

struct EncodeTotals {
  int64_t bytes = 0;  // of text read, uncompressed, JSON included
  uint64_t documents = 0, tokens = 0;
};

/// Reads `source` to its end, encodes on `threads` threads and appends the documents to `writer`
/// in the order of the text; finishing the writer is the caller's. The calling thread reads and
/// writes. Memory is bounded by some MiB and a few documents per thread. What is written does not
/// depend on `threads`; of several faults the first in the text is thrown. `progress` is called on
/// the calling thread now and then.
EncodeTotals encode_corpus(TextSource& source, const Tokenizer& tokenizer, ShardWriter& writer,
                           int threads,
                           const std::function<void(const EncodeTotals&)>& progress = {});

}  // namespace sw
