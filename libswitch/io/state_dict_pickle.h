// The pickle inside a PyTorch file, as far as a dictionary of tensors needs it.
//
// A pickle is a program. This reader runs the opcodes that torch.save (protocol 2) writes for a
// state dict, and knows the few names such a program calls; any other opcode or name is refused, so
// that nothing in a file can make anything happen but tensors.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "libswitch/io/tensor_archive.h"

namespace sw {

/// A tensor that the program builds: a strided view of a storage, which lies elsewhere in the file.
struct PickledTensor {
  std::string name;
  ElementType type = ElementType::f32;
  std::string storage;           // its key
  int64_t storage_elements = 0;  // its size as the pickle has it
  int64_t offset = 0;            // of the first element, in elements
  Shape shape;
  std::array<int64_t, Shape::kMaxRank> strides{};  // in elements
};

/// Runs the program and returns the dictionary's tensors in its order; every element of every
/// tensor lies inside its storage. `used` receives the bytes that the program took. Throws corrupt,
/// beginning with `name`.
std::vector<PickledTensor> read_state_dict_pickle(std::string_view pickle, const std::string& name,
                                                  size_t* used = nullptr);

/// The same of a program that makes a list of texts, and of one that makes a dictionary in which
/// `key` is true or false.
std::vector<std::string> read_pickled_texts(std::string_view pickle, const std::string& name,
                                            size_t* used);
bool read_pickled_flag(std::string_view pickle, const std::string& name, std::string_view key,
                       size_t* used);

}  // namespace sw
