// The vocabulary that a shard was encoded with.
#pragma once

#include <filesystem>
#include <string>

#include "libswitch/data/shard_format.h"
#include "libswitch/data/tokenizer.h"

namespace sw {

/// Loads the vocabulary of a shard: `given` when it is not empty, otherwise the file that the
/// shard's description names, or one of the same name beside the shard. Throws corrupt when `given`
/// is another vocabulary, missing when none is found.
Tokenizer load_shard_vocabulary(const ShardHeader& header, const std::filesystem::path& shard,
                                const std::filesystem::path& given = {});

}  // namespace sw
