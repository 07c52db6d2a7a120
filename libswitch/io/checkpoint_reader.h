// Reads a checkpoint. Everything but the tensors' bytes is verified when the file is opened, which
// takes milliseconds whatever the model's size; tensors are verified tile by tile as they are read.
//
//   CheckpointReader reader = open_checkpoint("runs/a");   // a file, a run folder, or "-"
//   Tensor q = reader.read("/model/encoder/block_000/attn/q");
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/tensor/rectangle.h"
#include "libswitch/tensor/tensor.h"

namespace sw {

class CheckpointReader {
 public:
  /// Opens one file. Throws missing, io, or corrupt when it is not a complete, undamaged checkpoint
  /// of a version known here.
  explicit CheckpointReader(const std::filesystem::path& file);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;
  CheckpointReader& operator=(CheckpointReader&&) noexcept;

  const std::filesystem::path& path() const;
  const CheckpointMeta& meta() const;
  /// 32 hexadecimal digits; equal digests mean equal bits of weights and optimizer state.
  const std::string& digest() const;

  /// Tensors in canonical order.
  const std::vector<TensorEntry>& entries() const;
  bool contains(const std::string& path) const;
  /// Throws missing, naming the nearest path.
  const TensorEntry& entry(const std::string& path) const;

  /// A whole tensor. Throws missing for an unknown path, corrupt (file, dataset, tile) when its
  /// bytes do not match their checksum.
  Tensor read(const std::string& path) const;
  /// Rows [begin, end) of the first dimension (experts, where that is "expert").
  Tensor read_rows(const std::string& path, int64_t begin, int64_t end) const;
  /// As read_rows, into memory of the caller's; `bytes` is its size and must fit.
  void read_rows_into(const std::string& path, int64_t begin, int64_t end, void* out,
                      int64_t bytes) const;

  /// A box of a tensor, into memory of the caller's, row-major and dense; `bytes` is its size and
  /// must fit. Every tile that the box touches is read whole and verified.
  void read_rectangle(const std::string& path, const Rectangle& box, void* out,
                      int64_t bytes) const;

  Telemetry read_telemetry() const;

  /// Reads and checks every byte and every object of the file. Throws corrupt.
  void verify_all() const;

 private:
  friend CheckpointReader open_checkpoint(const std::string&, int64_t);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Opens a file, a run folder (see resolve_checkpoint in checkpoint_folder.h), or "-": stdin,
/// spooled to $TMPDIR (or /tmp) and removed again; more than `max_spool_bytes` is an error.
CheckpointReader open_checkpoint(const std::string& argument,
                                 int64_t max_spool_bytes = int64_t{64} << 30);

}  // namespace sw
