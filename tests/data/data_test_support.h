// Small vocabularies, files and shards for the tests of the data layer.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/rng.h"
#include "libswitch/data/shard_writer.h"
#include "libswitch/data/tokenizer.h"
#include "libswitch/data/train_vocabulary.h"

namespace sw::testing {

/// A folder of its own for each test, removed afterwards.
class DataTest : public ::testing::Test {
 protected:
  DataTest() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              (std::string("sw-") + info->test_suite_name() + "-" + info->name() + "-" +
               std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~DataTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  std::filesystem::path write(const std::string& name, std::string_view content) const {
    std::ofstream(path(name), std::ios::binary) << content;  // no fsync, unlike the library's
    return path(name);
  }

 private:
  std::filesystem::path folder_;
};

/// The message of the Error of `kind` that `fn` throws; a test failure when it throws none.
inline std::string error_of(ErrorKind kind, const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an error";
  return "";
}

/// Lines of made-up words, the same for the same seed.
inline std::string nonsense_text(int lines, uint64_t seed) {
  static const char* const kSyllables[] = {"ba", "ke", "li",  "mo",  "nu",  "ra",  "se",  "ti",
                                           "vo", "za", "cha", "dro", "fle", "gri", "plu", "sta"};
  RngStream rng(rng_key(seed, RngPurpose::test));
  std::string text;
  for (int i = 0; i < lines; ++i) {
    const auto words = 3 + rng.below(12);
    for (uint64_t w = 0; w < words; ++w) {
      if (w > 0) text += ' ';
      const auto syllables = 1 + rng.below(3);
      for (uint64_t k = 0; k < syllables; ++k) text += kSyllables[rng.below(16)];
    }
    text += ".\n";
  }
  return text;
}

/// A vocabulary of 200 pieces trained on nonsense, made once per program.
inline const Tokenizer& small_tokenizer() {
  static const Tokenizer tokenizer = [] {
    const auto file = std::filesystem::temp_directory_path() /
                      ("sw-nonsense-" + std::to_string(::getpid()) + ".txt");
    write_file_atomically(file, nonsense_text(2000, 1));
    TextSource source({file}, {});
    VocabularyOptions options;
    options.pieces = 200;
    const TrainedVocabulary trained = train_vocabulary(source, options);
    std::filesystem::remove(file);
    return Tokenizer::from_bytes(trained.model, "nonsense.model");
  }();
  return tokenizer;
}

/// A header without a tokenizer behind it.
inline ShardHeader plain_header(uint32_t vocab_size, uint32_t block_tokens) {
  ShardHeader header;
  header.vocab_size = vocab_size;
  header.token_bytes = vocab_size <= 65536 ? 2 : 4;
  header.block_tokens_max = block_tokens;
  header.json = "{\"tool\":\"test\"}";
  for (size_t i = 0; i < 32; ++i) header.vocab_sha256[i] = static_cast<uint8_t>(7 * i + 1);
  for (size_t i = 0; i < 16; ++i) header.segment_id[i] = static_cast<uint8_t>(i + 1);
  return header;
}

/// One segment with these documents.
inline std::string shard_bytes(const std::vector<std::vector<int32_t>>& documents,
                               const ShardHeader& header, int threads = 1) {
  std::string bytes;
  ShardWriter writer(
      [&](const void* data, size_t n) { bytes.append(static_cast<const char*>(data), n); }, header,
      threads);
  for (const auto& document : documents) writer.append(document);
  writer.finish();
  return bytes;
}

/// Documents of random lengths in [1, longest] and tokens in [3, vocab_size).
inline std::vector<std::vector<int32_t>> random_documents(int count, int longest, int vocab_size,
                                                          uint64_t seed) {
  RngStream rng(rng_key(seed, RngPurpose::test, 1));
  std::vector<std::vector<int32_t>> documents(static_cast<size_t>(count));
  for (auto& document : documents) {
    document.resize(1 + rng.below(static_cast<uint64_t>(longest)));
    for (auto& token : document) {
      token = static_cast<int32_t>(3 + rng.below(static_cast<uint64_t>(vocab_size - 3)));
    }
  }
  return documents;
}

}  // namespace sw::testing
