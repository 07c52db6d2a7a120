#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/convert/conversion.h"
#include "libswitch/convert/export_plan.h"
#include "libswitch/convert/import_plan.h"
#include "libswitch/convert/layout.h"
#include "libswitch/io/json_text.h"
#include "libswitch/io/weights_folder.h"
#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

namespace fs = std::filesystem;

// Collects differences; a model that is all wrong need not be told tensor by tensor.
class Differences {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    ++count_;
    if (list_.size() < 20) list_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  std::vector<std::string> take() {
    if (count_ > list_.size()) list_.push_back(fmt::format("and {} more", count_ - list_.size()));
    return std::move(list_);
  }

 private:
  std::vector<std::string> list_;
  size_t count_ = 0;
};

// A name without the prefix that some files have.
std::string_view bare(std::string_view name) {
  for (const std::string_view prefix : {"switch_transformers.", "transformer."}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return name;
}

// Names that are two for one tensor, as name_map.h has them.
bool same_tensor(const std::string& exported, std::string_view source) {
  return exported == bare(source) || our_tensor(exported) == our_tensor(source);
}

}  // namespace

std::vector<std::string> compare_conversion(const fs::path& folder, const CheckpointReader& reader,
                                            bool exported, const ConversionOptions& options) {
  Differences differences;
  const fs::path config_file = folder / "config.json";
  const HuggingFaceConfig config =
      read_hugging_face_config(read_json_file(config_file), config_file.string());
  const auto archive = open_weights(folder);
  const ImportPlan theirs(*archive, config, config_file.string());
  const ModelConfig model = model_config_from_toml(reader.meta().config_toml,
                                                   reader.path().string() + ": /meta/config.toml");
  int64_t done = 0;
  const auto count = [&](int64_t bytes) {
    done += bytes;
    if (options.progress) options.progress(done, theirs.bytes());
  };

  if (exported) {
    // The folder, read as any folder is, must make the checkpoint's weights, and say nothing new.
    for (const std::string& note : theirs.notes()) differences.add("{}", note);
    size_t weights = 0;
    for (const TensorEntry& entry : reader.entries()) weights += entry.path.starts_with("/model/");
    if (weights != theirs.entries().size()) {
      differences.add("{} tensors in the checkpoint, {} from the folder", weights,
                      theirs.entries().size());
    }
    std::string ours;
    for (size_t i = 0; i < theirs.entries().size(); ++i) {
      const TensorEntry& entry = theirs.entries()[i];
      if (!reader.contains(entry.path) || reader.entry(entry.path).dtype != entry.dtype ||
          !(reader.entry(entry.path).shape == entry.shape)) {
        differences.add("{}: {} {} in the folder only", entry.path, entry.shape.str(),
                        dtype_name(entry.dtype));
        continue;
      }
      bool equal = true;
      theirs.stream(i, [&](int64_t begin, int64_t end, const void* data) {
        const int64_t bytes = entry.bytes() / std::max<int64_t>(1, entry.shape[0]) * (end - begin);
        ours.resize(static_cast<size_t>(bytes));
        reader.read_rows_into(entry.path, begin, end, ours.data(), bytes);
        equal = equal && std::memcmp(ours.data(), data, ours.size()) == 0;
        count(bytes);
      });
      if (!equal) differences.add("{}: other bits", entry.path);
    }
    return differences.take();
  }

  // What the checkpoint would be exported as must be the folder's own tensors.
  const ExportPlan back(reader, model, config.family);
  std::string raw, original;
  for (size_t i = 0; i < back.tensors().size(); ++i) {
    const ArchiveTensor& tensor = back.tensors()[i];
    const size_t from = theirs.source(back.source(i).parameter, back.source(i).expert);
    const ArchiveTensor& source = archive->tensors()[from];
    const bool copied_head =
        tensor.name == "lm_head.weight" && archive->find(tensor.name) < 0 && !config.scaled_logits;
    if (!copied_head && !same_tensor(tensor.name, source.name)) {
      differences.add("{} comes back as {}", shown(source.name), tensor.name);
    }
    DType dtype = DType::f32;
    if (!(tensor.shape == source.shape) || !dtype_for(tensor.type, dtype)) {
      differences.add("{}: shape {} comes back as {}", tensor.name, source.shape.str(),
                      tensor.shape.str());
      continue;
    }
    const int64_t row = std::max<int64_t>(1, tensor.bytes() / std::max<int64_t>(1, tensor.rows()));
    const int64_t row_elements = tensor.shape.elements() / std::max<int64_t>(1, tensor.rows());
    const int64_t source_row = source.bytes() / std::max<int64_t>(1, source.rows());
    bool equal = true;
    back.stream(i, [&](int64_t first_byte, const void* data, int64_t bytes) {
      const int64_t begin = first_byte / row, end = begin + bytes / row;
      raw.resize(static_cast<size_t>((end - begin) * source_row));
      archive->read_rows(from, begin, end, raw.data());
      const std::string* expected = &raw;
      if (source.type != tensor.type) {
        original.resize(static_cast<size_t>(bytes));
        convert_elements(raw.data(), source.type, (end - begin) * row_elements, original.data(),
                         dtype);
        expected = &original;
      }
      equal = equal && std::memcmp(expected->data(), data, static_cast<size_t>(bytes)) == 0;
      count(bytes);
    });
    if (!equal) differences.add("{}: other bits", tensor.name);
  }
  return differences.take();
}

}  // namespace sw
