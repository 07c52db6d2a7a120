#include "libswitch/io/weights_folder.h"

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/base/folder.h"
#include "libswitch/io/json_text.h"
#include "libswitch/io/safetensors.h"
#include "libswitch/io/torch_file.h"

namespace sw {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFiles = 20'000;

// Tensors spread over several files.
class ShardedWeights : public TensorArchive {
 public:
  ShardedWeights(const fs::path& index, std::unique_ptr<TensorArchive> (*open)(const fs::path&)) {
    const std::map<std::string, std::string> files = read_weights_index(index);
    std::map<std::string, size_t> parts;
    std::vector<Place> found;
    for (const auto& [tensor, file] : files) {
      const auto [at, added] = parts.emplace(file, parts_.size());
      if (added) {
        SW_CHECK(parts_.size() < kMaxFiles, corrupt, "{}: more than {} files", index.string(),
                 kMaxFiles);
        parts_.push_back(open(index.parent_path() / file));
      }
      const int64_t place = parts_[at->second]->find(tensor);
      SW_CHECK(place >= 0, corrupt, "{}: {} is said to hold {}, but does not", index.string(),
               shown(file), shown(tensor));
      found.push_back({at->second, static_cast<size_t>(place)});
    }
    // transformers loads what lies in the files, whether the index names it or not.
    for (size_t part = 0; part < parts_.size(); ++part) {
      for (size_t i = 0; i < parts_[part]->tensors().size(); ++i) {
        if (!files.contains(parts_[part]->tensors()[i].name)) found.push_back({part, i});
      }
    }
    std::sort(found.begin(), found.end(),
              [&](const Place& a, const Place& b) { return original(a).name < original(b).name; });
    for (const Place& place : found) {
      SW_CHECK(tensors_.empty() || tensors_.back().name != original(place).name, corrupt,
               "{}: two files hold {}", index.string(), shown(original(place).name));
      tensors_.push_back(original(place));
      // Numbers of different files must not meet.
      tensors_.back().identity += static_cast<uint64_t>(place.part) << 48;
    }
    places_ = std::move(found);
  }

  void read_rows(size_t tensor, int64_t begin, int64_t end, void* out) const override {
    const Place& place = places_.at(tensor);
    parts_[place.part]->read_rows(place.tensor, begin, end, out);
  }
  std::string file_of(size_t tensor) const override {
    return parts_[places_.at(tensor).part]->file_of(places_.at(tensor).tensor);
  }

 private:
  struct Place {
    size_t part = 0, tensor = 0;
  };
  const ArchiveTensor& original(const Place& place) const {
    return parts_[place.part]->tensors()[place.tensor];
  }

  std::vector<std::unique_ptr<TensorArchive>> parts_;
  std::vector<Place> places_;
};

}  // namespace

std::map<std::string, std::string> read_weights_index(const fs::path& path) {
  const nlohmann::json index = read_json_file(path);
  SW_CHECK(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
           corrupt, "{}: no \"weight_map\" of tensors to files", path.string());
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    SW_CHECK(file.is_string(), corrupt, "{}: {} has no file", path.string(), shown(tensor));
    const auto& name = file.get_ref<const std::string&>();
    const bool plain = !name.empty() && name[0] != '.' && name.find('/') == std::string::npos &&
                       name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
    SW_CHECK(plain, corrupt,
             "{}: {} is said to lie in \"{}\"; an index may name files of its own folder only",
             path.string(), shown(tensor), shown(name));
    files[tensor] = name;
  }
  SW_CHECK(!files.empty(), corrupt, "{}: names no tensor", path.string());
  return files;
}

std::unique_ptr<TensorArchive> open_weights(const fs::path& folder) {
  std::error_code error;
  check_folder(folder);
  const auto there = [&](const char* name) { return fs::exists(folder / name, error); };
  constexpr const char* kIndex = "model.safetensors.index.json";
  constexpr const char* kTorchIndex = "pytorch_model.bin.index.json";
  if (there("model.safetensors")) return open_safetensors(folder / "model.safetensors");
  if (there(kIndex)) return std::make_unique<ShardedWeights>(folder / kIndex, open_safetensors);
  if (there("pytorch_model.bin")) return open_torch_file(folder / "pytorch_model.bin");
  if (there(kTorchIndex)) {
    return std::make_unique<ShardedWeights>(folder / kTorchIndex, open_torch_file);
  }
  fail(ErrorKind::missing,
       "{}: no weights in this folder: expected model.safetensors or pytorch_model.bin, or the "
       "index.json of either",
       folder.string());
}

}  // namespace sw
