// The weights of a Hugging Face folder, in whichever of the four forms they lie.
#pragma once

#include <map>

#include "libswitch/io/tensor_archive.h"

namespace sw {

/// Opens, of those that are there, the first of model.safetensors, model.safetensors.index.json,
/// pytorch_model.bin and pytorch_model.bin.index.json. All files are opened and checked. An index
/// may name files of the folder itself only, each of which must hold what the index says of it;
/// what else lies in them counts too. Throws missing, io or corrupt.
std::unique_ptr<TensorArchive> open_weights(const std::filesystem::path& folder);

/// Tensor to file, from an index ("weight_map"). Throws corrupt for a file name that leads out of
/// the folder.
std::map<std::string, std::string> read_weights_index(const std::filesystem::path& path);

}  // namespace sw
