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

/// How the entries of a zip file say what they are.
struct ZipStyle {
  uint16_t method = 0, flags = 0;
  bool wide = false;  // zip64: sizes and places in fields of 64 bits, as in files of over 4 GB
};

inline std::string make_zip(const ZipContent& entries, const ZipStyle& style = {}) {
  constexpr uint64_t kElsewhere = 0xffffffff;
  std::string file, directory;
  for (const auto& [name, bytes] : entries) {
    const std::string size = little(style.wide ? kElsewhere : bytes.size(), 4);
    const std::string common = little(20, 2) + little(style.flags, 2) + little(style.method, 2) +
                               little(0, 4) + little(0, 4) + size + size + little(name.size(), 2);
    std::string local_extra, extra;
    if (style.wide) {
      const std::string sizes = little(bytes.size(), 8) + little(bytes.size(), 8);
      local_extra = little(1, 2) + little(16, 2) + sizes;
      extra = little(1, 2) + little(24, 2) + sizes + little(file.size(), 8);
    }
    directory += "PK\1\2" + little(20, 2) + common + little(extra.size(), 2) + little(0, 2) +
                 little(0, 2) + little(0, 2) + little(0, 4) +
                 little(style.wide ? kElsewhere : file.size(), 4) + name + extra;
    file += "PK\3\4" + common + little(local_extra.size(), 2) + name + local_extra + bytes;
  }
  const uint64_t count = entries.size();
  std::string wide_end;
  if (style.wide) {
    wide_end = "PK\6\6" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8) +
               little(count, 8) + little(count, 8) + little(directory.size(), 8) +
               little(file.size(), 8) + "PK\6\7" + little(0, 4) +
               little(file.size() + directory.size(), 8) + little(1, 4);
  }
  const std::string short_count = little(style.wide ? 0xffff : count, 2);
  return file + directory + wide_end + "PK\5\6" + little(0, 4) + short_count + short_count +
         little(style.wide ? kElsewhere : directory.size(), 4) +
         little(style.wide ? kElsewhere : file.size(), 4) + little(0, 2);
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
                                   const ZipContent& storages, const ZipStyle& style = {}) {
  ZipContent entries = {{"archive/data.pkl", make_pickle(tensors)},
                        {"archive/byteorder", "little"}};
  for (const auto& [key, bytes] : storages) entries.emplace_back("archive/data/" + key, bytes);
  entries.emplace_back("archive/version", "3\n");
  return make_zip(entries, style);
}

/// The same as PyTorch wrote it before 1.6; `storages` are of floats.
inline std::string make_legacy_torch_file(const std::vector<PickleTensor>& tensors,
                                          const ZipContent& storages) {
  std::string file = "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
  file += "\x80\x02}(" + pickle_text("protocol_version") + pickle_integer(1001) +
          pickle_text("little_endian") + "\x88" + pickle_text("type_sizes") + "}u.";
  file += make_pickle(tensors) + "\x80\x02](";
  for (const auto& [key, bytes] : storages) file += pickle_text(key);
  file += "e.";
  for (const auto& [key, bytes] : storages) file += little(bytes.size() / 4, 8) + bytes;
  return file;
}

}  // namespace sw::test
