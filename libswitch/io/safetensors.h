// Safetensors: 8 bytes N (little-endian), N bytes of JSON {name: {"dtype", "shape",
// "data_offsets"}}, then the tensors' bytes without holes. The reader follows the reference's rules
// (huggingface/safetensors, tensor.rs) to the letter; the writer gives the bytes that it would.
#pragma once

#include <map>
#include <memory>
#include <span>

#include "libswitch/base/file.h"
#include "libswitch/io/tensor_archive.h"

namespace sw {

/// Opens a file and checks its whole header; no tensor is read. Throws missing, io or corrupt.
/// Tensors of more than four dimensions are refused.
std::unique_ptr<TensorArchive> open_safetensors(const std::filesystem::path& path);

class SafetensorsWriter {
 public:
  /// Creates `path` + ".tmp" with the header of these tensors (names unique, in any order).
  /// `metadata` becomes "__metadata__". Throws usage, cannot_create or io.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<ArchiveTensor> tensors,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();

  /// Bytes [first_byte, first_byte + bytes) of a tensor, which may come in any order, each once.
  void write(const std::string& name, int64_t first_byte, const void* data, int64_t bytes);
  /// Throws internal unless every byte was written, else syncs and renames. Throws io.
  void commit();

 private:
  AtomicFile file_;
  std::string name_;
  std::map<std::string, std::pair<uint64_t, int64_t>> places_;  // first byte in the file, bytes
  int64_t left_ = 0;
};

}  // namespace sw
