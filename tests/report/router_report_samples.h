// Small checkpoints with telemetry of known figures.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_writer.h"

namespace sw::test {

/// Two layers of four experts, samples at steps 10, 20, ..., 10 * rows, 1000 tokens each, that
/// choose experts as `counts` says: [row][layer][expert] is counts(row, layer)[expert].
template <class Counts>
RouterTelemetry telemetry_of(int64_t rows, const Counts& counts) {
  RouterTelemetry t;
  t.layer_name = {"encoder/block_001", "decoder/block_001"};
  t.experts = 4;
  for (int64_t row = 0; row < rows; ++row) {
    t.step.push_back(10 * (row + 1));
    for (int64_t layer = 0; layer < 2; ++layer) {
      const std::vector<uint64_t> chosen = counts(row, layer);
      t.tokens.insert(t.tokens.end(), chosen.begin(), chosen.end());
      t.prob_sum.insert(t.prob_sum.end(), 4, 250.0f);
      t.dropped.push_back(layer == 0 ? 10 : 100);
      t.capacity.push_back(300);
      t.entropy.push_back(1.0f);
      t.confidence.push_back(layer == 0 ? 0.5f : 0.75f);
      t.aux.push_back(layer == 0 ? 1.0f : 2.0f);
      t.z.push_back(3.0f);
    }
  }
  return t;
}

/// The encoder's layer is even. In the decoder's, expert 3 gets nothing from row 2 (step 30) on.
inline RouterTelemetry skewed_telemetry() {
  return telemetry_of(5, [](int64_t row, int64_t layer) -> std::vector<uint64_t> {
    if (layer == 0) return {250, 260, 240, 250};
    return row < 2 ? std::vector<uint64_t>{400, 300, 200, 100}
                   : std::vector<uint64_t>{700, 200, 100, 0};
  });
}

inline RouterTelemetry even_telemetry() {
  return telemetry_of(5, [](int64_t, int64_t) -> std::vector<uint64_t> {
    return {250, 260, 240, 250};
  });
}

/// A checkpoint of a model with these layers' routers ([3, 4], all `weight`), or of a dense one.
inline void save_router_checkpoint(const std::filesystem::path& file,
                                   const RouterTelemetry& telemetry, float weight = 1,
                                   bool dense = false) {
  std::vector<TensorEntry> entries = {
      {"/model/shared/embedding", DType::f32, Shape{2, 3}, {"vocab", "d_model"}}};
  if (!dense) {
    for (const char* name : {"encoder/block_001", "decoder/block_001"}) {
      entries.push_back({std::string("/model/") + name + "/moe/router",
                         DType::f32,
                         Shape{3, 4},
                         {"d_model", "expert"}});
    }
  }
  CheckpointMeta meta;
  meta.step = telemetry.step.empty() ? 0 : telemetry.step.back();
  meta.optimizer = "adafactor";
  FileCalls calls;
  calls.fsync = [](int) { return 0; };  // a test need not wait for the disk
  Telemetry all;
  all.router = telemetry;
  CheckpointWriter writer(file, entries, meta, all, calls);
  for (const TensorEntry& entry : entries) {
    Tensor tensor = Tensor::empty(entry.shape, entry.dtype);
    auto* values = static_cast<float*>(tensor.raw());
    for (int64_t i = 0; i < entry.shape.elements(); ++i) {
      values[i] = i % 2 == 0 ? weight : 1.0f;
    }
    writer.write_tensor(entry.path, tensor);
  }
  writer.finish();
}

}  // namespace sw::test
