#include "libswitch/train/training_shards.h"

#include <unistd.h>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/log.h"
#include "libswitch/data/shard_reader.h"
#include "libswitch/data/shard_vocabulary.h"

namespace sw {
namespace {

constexpr const char* kStdin = "-";
constexpr const char* kSpooled = "stdin.swt";

// Copies stdin to `file`, checked on the way, unless an earlier start of the run did.
void spool(const std::filesystem::path& file) {
  if (std::filesystem::exists(file)) {
    log::info("--data -: {} is there from an earlier start", file.string());
    return;
  }
  SW_CHECK(::isatty(STDIN_FILENO) != 1, usage,
           "--data -: stdin is a terminal; pipe a token shard into it");
  AtomicFile out(file);
  ShardStream stream(STDIN_FILENO, "stdin", [&](const void* data, size_t bytes) {
    write_all(out.fd(), data, bytes, out.temporary_path().string());
  });
  TokenBlock block;
  while (stream.next(block)) continue;
  out.commit();
  log::info("--data -: {} tokens of stdin went into {}", stream.tokens(), file.string());
}

std::vector<DataSource> data_sources(const DataOptions& options,
                                     const std::filesystem::path& run_folder) {
  std::vector<DataSource> sources;
  bool stdin_taken = false;
  for (const std::string& text : options.data) {
    DataSource source = parse_data_source(text);
    if (source.path == kStdin) {
      SW_CHECK(!stdin_taken, usage, "--data - is given twice; stdin holds one shard");
      stdin_taken = true;
      source.path = run_folder / kSpooled;
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

bool takes_stdin(const DataOptions& options) {
  for (const std::string& text : options.data) {
    if (parse_data_source(text).path == kStdin) return true;
  }
  return false;
}

}  // namespace

std::string vocabulary_of(const CheckpointReader& reader) {
  const auto& attributes = reader.meta().attributes;
  const auto it = attributes.find(kVocabularyAttribute);
  const auto* text = it == attributes.end() ? nullptr : std::get_if<std::string>(&it->second);
  return text == nullptr ? reader.meta().tokenizer_sha256 : *text;
}

void spool_stdin(const DataOptions& options, const std::filesystem::path& run_folder) {
  if (takes_stdin(options)) spool(run_folder / kSpooled);
}

void check_stdin_spooled(const DataOptions& options, const std::filesystem::path& run_folder) {
  SW_CHECK(!takes_stdin(options) || std::filesystem::exists(run_folder / kSpooled), usage,
           "--dry-run does not read stdin; give a file for --data");
}

uint64_t TrainingShards::windows() const {
  uint64_t windows = 0;
  for (int64_t s = 0; s < dataset->sources(); ++s) windows += dataset->windows(s);
  return windows;
}

TrainingShards open_training_shards(DataOptions& options, uint64_t seed,
                                    const std::filesystem::path& run_folder,
                                    const std::string& expected, const std::string& whose) {
  TrainingShards out;
  const DatasetOptions data = options.dataset_options(seed);
  const auto sources = data_sources(options, run_folder);
  out.dataset = std::make_unique<Dataset>(sources, data);
  out.first_shard = sources.front().path;
  options.target_length = out.dataset->target_length();

  const DataVocabulary& vocabulary = out.dataset->vocabulary();
  out.vocabulary = to_hex(vocabulary.sha256.data(), vocabulary.sha256.size());
  SW_CHECK(expected.empty() || expected == out.vocabulary, corrupt,
           "{}: encoded with another vocabulary ({}...) than {} ({}...); give data of the same "
           "vocabulary, or start another run with --run",
           out.first_shard.string(), out.vocabulary.substr(0, 16), whose, expected.substr(0, 16));
  for (const std::string& name : options.eval_data) {
    auto set = std::make_unique<EvalSet>(name, data, options.eval_tokens);
    SW_CHECK(set->vocabulary().sha256 == vocabulary.sha256, corrupt,
             "{}: was encoded with another vocabulary than {}", name, out.first_shard.string());
    out.eval_sets.push_back({name, std::move(set)});
  }
  return out;
}

std::string shard_tokenizer(const std::filesystem::path& first,
                            const std::filesystem::path& given) {
  try {
    const ShardFile shard(first);
    return load_shard_vocabulary(shard.header(), first, given).model_bytes();
  } catch (const Error& error) {
    if (!given.empty() || error.kind() != ErrorKind::missing) throw;
    log::warn("{}; checkpoints will hold no vocabulary: give --vocab to change that", error.what());
    return {};
  }
}

}  // namespace sw
