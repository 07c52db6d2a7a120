#include "libswitch/convert/model_files.h"

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/regular_file.h"
#include "libswitch/data/tokenizer.h"
#include "libswitch/io/json_text.h"

namespace sw {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "hugging_face/";
constexpr const char* kVocabulary = "spiece.model";
constexpr const char* kConfig = "config.json";
constexpr const char* kKept[] = {kConfig, "generation_config.json", "tokenizer_config.json",
                                 "special_tokens_map.json", "added_tokens.json"};
constexpr size_t kMaxKept = 65536;  // what an attribute of a checkpoint holds

const std::string* kept(const CheckpointMeta& meta, const std::string& name) {
  const auto at = meta.attributes.find(kPrefix + name);
  return at == meta.attributes.end() ? nullptr : std::get_if<std::string>(&at->second);
}

std::string text(const nlohmann::json& json) { return json.dump(2) + "\n"; }

std::string default_tokenizer_config() {
  return text({{"tokenizer_class", "T5Tokenizer"},
               {"extra_ids", Tokenizer::kSentinels},
               {"model_max_length", 512},
               {"eos_token", "</s>"},
               {"pad_token", "<pad>"},
               {"unk_token", "<unk>"}});
}

std::string default_special_tokens() {
  nlohmann::json sentinels = nlohmann::json::array();
  for (int k = 0; k < Tokenizer::kSentinels; ++k) {
    sentinels.push_back(fmt::format("<extra_id_{}>", k));
  }
  return text({{"additional_special_tokens", std::move(sentinels)},
               {"eos_token", "</s>"},
               {"pad_token", "<pad>"},
               {"unk_token", "<unk>"}});
}

}  // namespace

void take_model_files(const fs::path& folder, int64_t vocab_size, CheckpointMeta& meta,
                      std::vector<std::string>& notes) {
  std::error_code error;
  for (const char* name : kKept) {
    if (!fs::exists(folder / name, error)) continue;
    require_regular_file(folder / name);
    const uintmax_t bytes = fs::file_size(folder / name, error);
    if (!error && bytes > kMaxKept) {
      notes.push_back(
          fmt::format("{} is left out: {} bytes, at most {} are kept", name, bytes, kMaxKept));
      continue;
    }
    const std::string content = read_file(folder / name, kMaxKept);
    if (content.find('\0') != std::string::npos) {
      notes.push_back(fmt::format("{} is left out: it is no text", name));
      continue;
    }
    meta.attributes[kPrefix + std::string(name)] = content;
  }
  const fs::path vocabulary = folder / kVocabulary;
  const bool fast = fs::exists(folder / "tokenizer.json", error);
  if (!fs::exists(vocabulary, error)) {
    notes.push_back(fmt::format(
        "no {} in the folder{}: the checkpoint holds no vocabulary, and tools that need "
        "one take it from --vocab",
        kVocabulary, fast ? ", and tokenizer.json is not read" : ""));
    return;
  }
  if (fast) notes.push_back("tokenizer.json is left out: the vocabulary is spiece.model's");
  require_regular_file(vocabulary);
  try {
    const Tokenizer tokenizer = Tokenizer::load(vocabulary);
    if (tokenizer.vocab_size() > vocab_size) {
      notes.push_back(fmt::format("{} is left out: it has {} ids, the embedding table {} rows",
                                  kVocabulary, tokenizer.vocab_size(), vocab_size));
      return;
    }
    meta.tokenizer = tokenizer.model_bytes();
  } catch (const Error& failure) {
    if (failure.kind() != ErrorKind::corrupt) throw;
    notes.push_back(fmt::format("the vocabulary is left out: {}", failure.what()));
  }
}

std::map<std::string, std::string> model_files(const CheckpointMeta& meta) {
  std::map<std::string, std::string> files;
  for (const char* name : kKept) {
    if (const std::string* content = kept(meta, name)) files[name] = *content;
  }
  files.erase(kConfig);
  files.try_emplace("generation_config.json", text({{"_from_model_config", true},
                                                    {"decoder_start_token_id", Tokenizer::kPad},
                                                    {"eos_token_id", Tokenizer::kEos},
                                                    {"pad_token_id", Tokenizer::kPad}}));
  if (!meta.tokenizer.empty()) {
    files[kVocabulary] = meta.tokenizer;
    files.try_emplace("tokenizer_config.json", default_tokenizer_config());
    files.try_emplace("special_tokens_map.json", default_special_tokens());
  }
  return files;
}

nlohmann::json original_config(const CheckpointMeta& meta) {
  const std::string* content = kept(meta, kConfig);
  return content == nullptr ? nlohmann::json() : parse_json(*content, kConfig);
}

}  // namespace sw
