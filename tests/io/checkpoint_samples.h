// A small checkpoint with every kind of content, and folders that clean up after themselves.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/rng.h"
#include "libswitch/io/checkpoint_folder.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/io/checkpoint_writer.h"

namespace sw::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "switch-io-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

using Tensors = std::map<std::string, Tensor>;

inline std::vector<TensorEntry> sample_entries() {
  return {
      {"/model/shared/embedding", DType::bf16, Shape{11, 6}, {"vocab", "d_model"}},
      {"/model/encoder/block_000/attn/q", DType::bf16, Shape{6, 4}, {"d_model", "inner"}},
      {"/model/encoder/block_001/moe/wi",
       DType::bf16,
       Shape{3, 6, 5},
       {"expert", "d_model", "d_ff"}},
      {"/model/encoder/block_001/moe/router", DType::f32, Shape{6, 3}, {"d_model", "expert"}},
      {"/model/encoder/final_norm", DType::f32, Shape{6}, {"d_model"}},
      {"/master/encoder/block_000/attn/q", DType::f32, Shape{6, 4}, {"d_model", "inner"}},
      {"/optim/encoder/block_001/moe/wi/vr", DType::f32, Shape{3, 6}, {"expert", "d_model"}},
      {"/optim/encoder/block_001/moe/wi/vc", DType::f32, Shape{3, 5}, {"expert", "d_ff"}},
      {"/optim/encoder/final_norm/v", DType::f64, Shape{}, {}},
      {"/optim/counts", DType::i32, Shape{7}, {"slot"}},
      {"/optim/flags", DType::u8, Shape{1, 2, 1, 9}, {"a", "b", "c", "d"}},
      {"/optim/nothing", DType::f32, Shape{0, 4}, {"none", "d_model"}},
  };
}

/// Deterministic bytes; not all patterns are finite numbers, which a checkpoint must not mind.
inline Tensors sample_tensors(const std::vector<TensorEntry>& entries, uint64_t seed = 1) {
  Tensors tensors;
  for (const TensorEntry& entry : entries) {
    Tensor tensor = Tensor::empty(entry.shape, entry.dtype);
    const RngKey key = rng_key(seed, RngPurpose::test, entry.path);
    auto* bytes = static_cast<uint8_t*>(tensor.raw());
    for (int64_t i = 0; i < tensor.bytes(); ++i) {
      bytes[i] = static_cast<uint8_t>(random_u32(key, static_cast<uint64_t>(i)));
    }
    tensors[entry.path] = tensor;
  }
  return tensors;
}

inline CheckpointMeta sample_meta(int64_t step = 12000) {
  CheckpointMeta meta;
  meta.step = step;
  meta.tokens = 123456789012;
  meta.params_total = 619339008;
  meta.params_active = 222900000;
  meta.preset = "switch-base-8";
  meta.tool_version = "sw-pretrain 0.1.0";
  meta.created_utc = "2026-11-24T12:00:00Z";
  meta.optimizer = "adafactor";
  meta.config_toml = "[model]\npreset = \"switch-base-8\"  # größer\n";
  meta.argv = {"sw-pretrain", "--preset", "", "--run", "a b"};
  meta.metrics_json = "{\"neg_log_perplexity\": -2.5}";
  meta.tokenizer = std::string("\x0a\x00\x7f spiece \xff\x00", 13);
  meta.train = {42, 0.01, 2.25, 0.5, 3, {"ab12", 7, 1, 987654321012345, {"books", "web"}, {5, 6}}};
  meta.attributes = {{"world_size", int64_t{8}},
                     {"layout", std::string("dp=8,ep=4")},
                     {"balance", 1.25},
                     {"empty", std::string()}};
  return meta;
}

inline Telemetry sample_telemetry() {
  Telemetry telemetry;
  telemetry.train = {{10, 20}, {3.5, 3.25}, {0.01, 0.01}, {1.5, 0.75}, {1000.5, 1001.5}};
  RouterTelemetry& router = telemetry.router;
  router.step = {10, 20};
  router.layer_name = {"encoder/block_001", "decoder/block_001", "decoder/block_003"};
  router.experts = 4;
  for (uint64_t i = 0; i < 24; ++i) {
    router.tokens.push_back(i << 30);
    router.prob_sum.push_back(0.5f * static_cast<float>(i));
  }
  for (uint64_t i = 0; i < 6; ++i) {
    const auto x = static_cast<float>(i);
    router.dropped.push_back(i), router.capacity.push_back(64 + i);
    router.entropy.push_back(1.0f + x), router.confidence.push_back(0.1f * x);
    router.aux.push_back(1.0f + 0.01f * x), router.z.push_back(2.0f * x);
  }
  return telemetry;
}

/// The real calls but for fsync, which tests of other things need not wait for.
inline FileCalls unsynced_calls() {
  FileCalls calls;
  calls.fsync = [](int) { return 0; };
  return calls;
}

/// Saves and returns what finish() gave.
inline CommittedCheckpoint save_sample(const std::filesystem::path& path, uint64_t seed = 1,
                                       int64_t step = 12000, FileCalls calls = unsynced_calls()) {
  const std::vector<TensorEntry> entries = sample_entries();
  CheckpointWriter writer(path, entries, sample_meta(step), sample_telemetry(), std::move(calls));
  for (const auto& [name, tensor] : sample_tensors(entries, seed)) {
    writer.write_tensor(name, tensor);
  }
  return writer.finish();
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0;
}

/// The error that `fn` throws; a failure of the test when it throws none.
template <class Fn>
Error error_of(const Fn& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "expected an error";
  return Error(ErrorKind::internal, "none");
}

inline int64_t files_in(const std::filesystem::path& folder) {
  return std::distance(std::filesystem::directory_iterator(folder),
                       std::filesystem::directory_iterator());
}

}  // namespace sw::test
