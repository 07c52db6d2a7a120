// PyTorch's own files (pytorch_model.bin): a zip of a pickle and of storages, and before
// PyTorch 1.6 pickles and storages one after the other.
#pragma once

#include <memory>

#include "libswitch/io/tensor_archive.h"

namespace sw {

/// Opens a state dict that torch.save wrote and checks its directory and pickle; no storage is
/// read. Aliases have equal identities; tensors may be transposed or other views. Throws missing,
/// io, or corrupt (among others: any pickle that is more than a dictionary of tensors, a
/// compressed entry).
std::unique_ptr<TensorArchive> open_torch_file(const std::filesystem::path& path);

}  // namespace sw
