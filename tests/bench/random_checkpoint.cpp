// A checkpoint of random weights in any preset's shape, without ever holding the model: what
// conversion and mapped experts are measured on.
//
//   random_checkpoint PRESET fp32|bf16 FILE.h5
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/rng.h"
#include "libswitch/io/checkpoint_writer.h"
#include "libswitch/nn/model_options.h"

namespace {

using namespace sw;

constexpr int64_t kVocabulary = 32128;  // where the preset leaves it to the data

// Rows of about 64 MiB: a tile each, so that no checksum is read back.
int64_t rows_at_once(const TensorEntry& entry) {
  const int64_t rows = entry.shape.rank() == 0 ? 1 : entry.shape[0];
  if (entry.axes[0] == "expert") return 1;
  return std::max<int64_t>(1, kTileBytes / (entry.bytes() / rows));
}

void write_random(CheckpointWriter& writer, const TensorEntry& entry, std::vector<float>& buffer) {
  const RngKey key = rng_key(1, RngPurpose::init, entry.path);
  const int64_t rows = entry.shape[0], row = entry.shape.elements() / rows;
  for (int64_t begin = 0; begin < rows; begin += rows_at_once(entry)) {
    const int64_t count = std::min(rows - begin, rows_at_once(entry)) * row;
    buffer.resize(static_cast<size_t>(count));
    parallel_for(count, 1 << 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        buffer[static_cast<size_t>(i)] =
            random_uniform(key, static_cast<uint64_t>(begin * row + i)) - 0.5f;
      }
    });
    // In place: element i of 2 bytes lies before element i of 4.
    auto* narrow = reinterpret_cast<char*>(buffer.data());
    for (int64_t i = 0; entry.dtype == DType::bf16 && i < count; ++i) {
      const uint16_t bits = bf16::round(buffer[static_cast<size_t>(i)]);
      std::memcpy(narrow + 2 * i, &bits, 2);
    }
    Rectangle box = whole_of(entry.shape);
    box.start[0] = begin, box.count[0] = count / row;
    writer.write_rectangle(entry.path, box, buffer.data());
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    SW_CHECK(argc == 4, usage, "usage: random_checkpoint PRESET fp32|bf16 FILE.h5");
    ModelConfig config = model_config_of_preset(argv[1]);
    if (config.vocab_size == 0) config.vocab_size = kVocabulary;
    const DType dtype = std::strcmp(argv[2], "bf16") == 0 ? DType::bf16 : DType::f32;
    std::vector<TensorEntry> entries;
    for (const ParameterSpec& spec : parameter_specs(config)) {
      entries.push_back({"/model/" + spec.name, dtype, spec.shape, spec.axes});
    }
    CheckpointMeta meta;
    meta.preset = argv[1];
    meta.config_toml = model_config_to_toml(config);
    meta.params_total = count_parameters(config).total;
    meta.attributes["compute_dtype"] = std::string(argv[2]);
    meta.attributes["vocab_sha256"] = std::string();
    CheckpointWriter writer(argv[3], entries, meta, Telemetry());
    std::vector<float> buffer;
    for (const TensorEntry& entry : entries) write_random(writer, entry, buffer);
    const CommittedCheckpoint done = writer.finish();
    std::printf("%s %ld parameters, %ld bytes, digest %s\n", argv[3],
                static_cast<long>(meta.params_total), static_cast<long>(done.bytes),
                done.digest.c_str());
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "random_checkpoint: error: %s\n", error.what());
    return exit_code(error.kind());
  }
}
