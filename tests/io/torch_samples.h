// PyTorch files made by hand: a zip of stored entries, and the pickle of a dictionary of tensors.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sw::test {

inline std::string little(uint64_t value, size_t bytes) {
  return {reinterpret_cast<const char*>(&value), bytes};
}

using ZipContent = std::vector<std::pair<std::string, std::string>>;

/// A zip file; `method` is what its entries say of their compression.
inline std::string make_zip(const ZipContent& entries, uint16_t method = 0, uint16_t flags = 0) {
  std::string file, directory;
  for (const auto& [name, bytes] : entries) {
    const std::string sizes = little(0, 4) + little(bytes.size(), 4) + little(bytes.size(), 4);
    const std::string common = little(20, 2) + little(flags, 2) + little(method, 2) + little(0, 4) +
                               sizes + little(name.size(), 2);
    directory += "PK\1\2" + little(20, 2) + common + little(0, 2) + little(0, 2) + little(0, 2) +
                 little(0, 2) + little(0, 4) + little(file.size(), 4) + name;
    file += "PK\3\4" + common + little(0, 2) + name + bytes;
  }
  const std::string count = little(entries.size(), 2);
  return file + directory + "PK\5\6" + little(0, 4) + count + count + little(directory.size(), 4) +
         little(file.size(), 4) + little(0, 2);
}

inline std::string pickle_text(const std::string& text) {
  return "X" + little(text.size(), 4) + text;
}
inline std::string pickle_integer(int64_t value) {
  return value >= 0 && value < (int64_t{1} << 31)
             ? "J" + little(static_cast<uint64_t>(value), 4)
             : "\x8a\x08" + little(static_cast<uint64_t>(value), 8);
}
inline std::string pickle_tuple(const std::vector<int64_t>& values) {
  std::string out = "(";
  for (const int64_t value : values) out += pickle_integer(value);
  return out + "t";
}

struct PickleTensor {
  std::string name, storage_type, storage;
  int64_t storage_elements = 0, offset = 0;
  std::vector<int64_t> sizes, strides;
};

/// One entry of the dictionary, as torch.save writes it.
inline std::string pickle_entry(const PickleTensor& t) {
  return pickle_text(t.name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + pickle_text("storage") +
         "ctorch\n" + t.storage_type + "\n" + pickle_text(t.storage) + pickle_text("cpu") +
         pickle_integer(t.storage_elements) + "tQ" + pickle_integer(t.offset) +
         pickle_tuple(t.sizes) + pickle_tuple(t.strides) + "\x89" +
         "ccollections\nOrderedDict\n)R" + "tR";
}

/// The pickle of a state dict, its _metadata included.
inline std::string make_pickle(const std::vector<PickleTensor>& tensors) {
  std::string out = "\x80\x02";
  out += "ccollections\nOrderedDict\n)R(";
  for (const PickleTensor& tensor : tensors) out += pickle_entry(tensor);
  return out + "u}" + pickle_text("_metadata") + "}sb.";
}

inline std::string make_torch_file(const std::vector<PickleTensor>& tensors,
                                   const ZipContent& storages) {
  ZipContent entries = {{"archive/data.pkl", make_pickle(tensors)},
                        {"archive/byteorder", "little"}};
  for (const auto& [key, bytes] : storages) entries.emplace_back("archive/data/" + key, bytes);
  entries.emplace_back("archive/version", "3\n");
  return make_zip(entries);
}

}  // namespace sw::test
