// Token shards as a tool that trains opens them: --data, --eval-data, stdin.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/options.h"
#include "libswitch/train/pretraining.h"

namespace sw {

/// The attribute of a checkpoint that names the vocabulary of its data, as hexadecimal digits.
inline constexpr const char* kVocabularyAttribute = "vocab_sha256";
/// Its value; of a checkpoint that has none that of its tokenizer, which may be empty.
std::string vocabulary_of(const CheckpointReader& reader);

/// Copies stdin into the run folder where --data is "-", checked on the way, unless an earlier
/// start of the run did. Throws usage when stdin is a terminal.
void spool_stdin(const DataOptions& options, const std::filesystem::path& run_folder);
/// Throws usage where --data is "-" and nothing was spooled yet.
void check_stdin_spooled(const DataOptions& options, const std::filesystem::path& run_folder);

struct TrainingShards {
  std::unique_ptr<Dataset> dataset;
  std::vector<PretrainingObjective::NamedEvalSet> eval_sets;
  std::filesystem::path first_shard;
  std::string vocabulary;  // SHA-256, hexadecimal
  /// Windows of one epoch.
  uint64_t windows() const;
};
/// Opens them all and settles the target length. `vocabulary`, where not empty, is what they must
/// be encoded with, and `whose` says why: "the data of the run so far". Throws as Dataset and
/// EvalSet; corrupt when vocabularies differ.
TrainingShards open_training_shards(DataOptions& options, uint64_t seed,
                                    const std::filesystem::path& run_folder,
                                    const std::string& vocabulary, const std::string& whose);

/// The vocabulary file for the checkpoints; empty, with a warning, when it is not there (they then
/// cannot turn tokens into text).
std::string shard_tokenizer(const std::filesystem::path& shard, const std::filesystem::path& given);

}  // namespace sw
