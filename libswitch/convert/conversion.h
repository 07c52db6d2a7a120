// Whole models between checkpoints and Hugging Face folders, one tensor at a time: memory stays
// below the largest tensor and two pieces of 64 MiB, whatever the model's size.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_reader.h"

namespace sw {

struct ConversionOptions {
  int64_t max_shard_bytes = 5'000'000'000;  // of a file of a folder; a larger tensor has its own
  bool replace = false;                     // what lies at the target may be replaced
  bool dry_run = false;                     // look at everything, write nothing
  std::vector<std::string> argv;            // for the checkpoint
  std::string tool;                         // "sw-convert 0.1.0"
  std::function<void(int64_t done, int64_t bytes)> progress;
};

struct ConversionReport {
  int64_t tensors = 0;  // of Hugging Face's
  int64_t bytes = 0;    // of weights
  int64_t files = 1;    // that hold them
  std::string digest;   // of a checkpoint that was written
  std::vector<std::string> notes;
};

/// The model in `folder` as a checkpoint. Nothing lies at `file` before all is written. Throws
/// missing, corrupt, cannot_create (also when `file` is there and may not be replaced) and io.
ConversionReport convert_from_hugging_face(const std::filesystem::path& folder,
                                           const std::filesystem::path& file,
                                           const ConversionOptions& options);

/// A checkpoint's weights, configuration and vocabulary as a folder that transformers loads.
/// Nothing lies at `folder` before all is written. Throws as above, and usage for a model that
/// config.json cannot describe.
ConversionReport convert_to_hugging_face(const CheckpointReader& reader,
                                         const std::filesystem::path& folder,
                                         const ConversionOptions& options);

/// Converts back, tensor by tensor in memory, and compares with what `folder` and `file` hold.
/// `report` is the conversion's; `exported` says which of the two was the source: false for the
/// folder. Returns a sentence for each difference; none means that all bits are equal.
std::vector<std::string> compare_conversion(const std::filesystem::path& folder,
                                            const CheckpointReader& reader, bool exported,
                                            const ConversionOptions& options);

}  // namespace sw
