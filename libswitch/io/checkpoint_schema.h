// What a checkpoint holds, as plain structs: tensors cut into tiles, the facts of the run, and
// telemetry. How it lies in the HDF5 file is said in checkpoint_format.h.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libswitch/base/hash.h"
#include "libswitch/tensor/dtype.h"
#include "libswitch/tensor/shape.h"

namespace sw {

/// One stored tensor. `path` begins with "/model/", "/optim/" or "/master/", goes on with the
/// parameter's name and, under /optim, ends with the name of the state ("vr", "vc", "v", "m").
/// `axes` labels the dimensions, one label each, e.g. {"expert", "d_model", "d_ff"}.
struct TensorEntry {
  std::string path;
  DType dtype = DType::f32;
  Shape shape;
  std::vector<std::string> axes;
  int64_t bytes() const { return shape.elements() * element_bytes(dtype); }
  bool operator==(const TensorEntry&) const = default;
};

/// Largest run of rows that is checked as one piece. (A single row or expert matrix may be larger.)
inline constexpr int64_t kTileBytes = int64_t{64} << 20;

/// Rows [begin, end) of a tensor's first dimension: the unit that is checksummed, and that a reader
/// reads whole. A tensor whose first axis is "expert" has one tile an expert; any other has tiles
/// of as many rows as fit kTileBytes. A scalar is one row, a tensor without elements has no tile.
struct Tile {
  int64_t entry = 0;       // index of the tensor among the entries in canonical order
  int64_t index = 0;       // of the tile in its tensor
  int64_t begin = 0;       // first row
  int64_t end = 0;         // one past the last row
  int64_t first_byte = 0;  // within the tensor
  int64_t bytes = 0;
};

/// Sorts entries into canonical order (bytewise by path) and checks them: paths well formed and
/// unique, a label for each dimension, no size negative or too large. Throws usage.
void canonicalize(std::vector<TensorEntry>& entries);

/// Tiles of all entries, in canonical order (entry, index).
std::vector<Tile> make_tiles(std::span<const TensorEntry> entries);

/// A checkpoint's digest: XXH3-128 over the tiles' XXH3-64 checksums (little-endian, 8 bytes each)
/// in canonical order.
std::string checkpoint_digest(std::span<const uint64_t> tile_checksums);

/// Where the next sample comes from (design.md section 3: samples are a pure function of manifest,
/// seed, epoch and ordinal).
struct DataPosition {
  std::string manifest_sha256;  // of the data the run was started with
  uint64_t seed = 0;
  int64_t epoch = 0;
  uint64_t ordinal = 0;  // next sample of the whole stream
  /// Next sample of each source of a mixture, in the mixture's order.
  std::vector<std::string> source_names;
  std::vector<uint64_t> source_ordinals;
  bool operator==(const DataPosition&) const = default;
};

/// State of training beside weights and optimizer moments.
struct TrainState {
  uint64_t seed = 0;
  double lr = 0;
  double loss_ema = 0;
  double loss_variance = 0;
  int64_t skipped_steps = 0;
  DataPosition data;
  bool operator==(const TrainState&) const = default;
};

using AttributeValue = std::variant<int64_t, double, std::string>;

struct CheckpointMeta {
  int64_t step = 0;
  int64_t tokens = 0;  // consumed so far
  int64_t params_total = 0;
  int64_t params_active = 0;  // used by one token
  std::string preset;
  std::string tool_version;
  std::string created_utc;  // ISO 8601
  std::string optimizer;    // "adafactor", "adamw"
  std::string config_toml;  // resolved configuration
  std::vector<std::string> argv;
  std::string metrics_json;      // last evaluation, may be empty
  std::string tokenizer;         // bytes of the SentencePiece model; may be empty
  std::string tokenizer_sha256;  // 64 hexadecimal digits; filled in by the reader
  TrainState train;
  /// Anything else worth keeping (world_size, layout, ...): attributes of the root. No name of a
  /// fixed attribute may be used.
  std::map<std::string, AttributeValue> attributes;
};

/// One row per logged step, T rows.
struct TrainTelemetry {
  std::vector<int64_t> step;
  std::vector<double> loss, lr, grad_norm, tok_s;
  bool operator==(const TrainTelemetry&) const = default;
};

/// One row per logged step (T), layer (L) and expert (E); row-major. Layers with fewer than E
/// experts fill up with zeros.
struct RouterTelemetry {
  std::vector<int64_t> step;            // [T]
  std::vector<std::string> layer_name;  // [L], e.g. "encoder/block_001"
  int64_t experts = 0;                  // E
  std::vector<uint64_t> tokens;         // [T, L, E] choices of an expert, before capacity
  std::vector<float> prob_sum;          // [T, L, E] sum of router probabilities
  std::vector<uint64_t> dropped;        // [T, L]
  std::vector<uint64_t> capacity;  // [T, L] slots an expert had in the step, all groups together
  std::vector<float> entropy;      // [T, L] mean over tokens, nats
  std::vector<float> confidence;   // [T, L] mean gate of the chosen expert
  std::vector<float> aux, z;       // [T, L] losses before their coefficients
  bool operator==(const RouterTelemetry&) const = default;
};

struct Telemetry {
  TrainTelemetry train;
  RouterTelemetry router;
  bool operator==(const Telemetry&) const = default;
};

/// Throws usage when an array's length does not fit T, L, E.
void check_telemetry(const Telemetry& telemetry);

}  // namespace sw
