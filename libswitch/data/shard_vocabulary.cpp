#include "libswitch/data/shard_vocabulary.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"
#include "libswitch/data/shard_reader.h"

namespace sw {

Tokenizer load_shard_vocabulary(const ShardHeader& header, const std::filesystem::path& shard,
                                const std::filesystem::path& given) {
  if (!given.empty()) {
    Tokenizer tokenizer = Tokenizer::load(given);
    check_vocabulary(header, tokenizer.sha256(), shard.string(), given.string());
    return tokenizer;
  }
  const auto description = nlohmann::json::parse(header.json, nullptr, false);
  std::filesystem::path recorded;
  if (description.is_object() && description.contains("vocab") &&
      description["vocab"].is_string()) {
    recorded = description["vocab"].get<std::string>();
  }
  if (!recorded.empty()) {
    for (const auto& path : {recorded, shard.parent_path() / recorded.filename()}) {
      std::error_code ignored;
      if (!std::filesystem::is_regular_file(path, ignored)) continue;
      try {
        Tokenizer tokenizer = Tokenizer::load(path);
        if (tokenizer.sha256() == header.vocab_sha256) return tokenizer;
      } catch (const Error&) {
        // Not the vocabulary we are looking for.
      }
    }
  }
  fail(ErrorKind::missing,
       "{}: its vocabulary (SHA-256 {}...{}) is not found; give the model file with --vocab",
       shard.string(), to_hex(header.vocab_sha256.data(), 8),
       recorded.empty() ? "" : ", encoded with " + recorded.string());
}

}  // namespace sw
