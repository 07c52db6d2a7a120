#include "libswitch/convert/export_plan.h"

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/convert/layout.h"

namespace sw {

ExportPlan::ExportPlan(const CheckpointReader& reader, const ModelConfig& model, HfFamily family)
    : reader_(reader) {
  for (const ParameterSpec& spec : parameter_specs(model)) {
    const std::string path = "/model/" + spec.name;
    SW_CHECK(reader.contains(path), corrupt,
             "{}: holds no {}, which the model of its configuration has", reader.path().string(),
             path);
    const TensorEntry& entry = reader.entry(path);
    SW_CHECK(entry.shape == spec.shape, corrupt, "{}: {}: expected shape {}, got {}",
             reader.path().string(), path, spec.shape.str(), entry.shape.str());
    SW_CHECK(is_floating(entry.dtype), usage, "{}: {} is {}, which no model of Hugging Face has",
             reader.path().string(), path, dtype_name(entry.dtype));
    for (HfTensor& theirs : hf_tensors(spec.name, family, model.experts)) {
      Shape shape = spec.shape;
      if (theirs.expert >= 0) shape = Shape(spec.shape.begin() + 1, spec.shape.end());
      if (theirs.transpose) shape = Shape{shape[1], shape[0]};
      tensors_.push_back({std::move(theirs.name), element_of(entry.dtype), shape, tensors_.size()});
      sources_.push_back({spec.name, theirs.expert, theirs.transpose});
    }
    if (spec.name == "shared/embedding" && family == HfFamily::switch_transformers &&
        !model.tied_embeddings) {
      // transformers up to 4.57 ties a Switch model's embeddings to each other only if the head is
      // tied too, and would draw them at random here.
      for (const char* alias : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}) {
        tensors_.push_back({alias, element_of(entry.dtype), spec.shape, tensors_.size()});
        sources_.push_back({spec.name, -1, false});
      }
    }
  }
}

int64_t ExportPlan::bytes() const {
  int64_t bytes = 0;
  for (const ArchiveTensor& tensor : tensors_) bytes += tensor.bytes();
  return bytes;
}

void ExportPlan::stream(size_t index, const Bytes& bytes) const {
  const ArchiveTensor& tensor = tensors_.at(index);
  const Source& source = sources_[index];
  const std::string path = "/model/" + source.parameter;
  const int64_t rows = tensor.rows(), row = tensor.bytes() / rows;
  const int64_t step = std::max<int64_t>(1, kTileBytes / row);
  // Ours: one expert's matrix or all of the tensor, where it cannot be given as it lies.
  std::string ours;
  if (source.transpose || source.expert >= 0) {
    ours.resize(static_cast<size_t>(tensor.bytes()));
    const int64_t begin = std::max<int64_t>(source.expert, 0);
    const int64_t end = source.expert >= 0 ? begin + 1 : tensor.shape[1];
    reader_.read_rows_into(path, begin, end, ours.data(), tensor.bytes());
  }
  std::string part;
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t count = std::min(rows - begin, step);
    const char* data = ours.data() + begin * row;
    if (source.transpose) {
      part.resize(static_cast<size_t>(count * row));
      transpose_rows(ours.data(), tensor.shape[1], rows, element_bits(tensor.type) / 8, begin,
                     count, part.data());
      data = part.data();
    } else if (source.expert < 0) {
      part.resize(static_cast<size_t>(count * row));
      reader_.read_rows_into(path, begin, begin + count, part.data(), count * row);
      data = part.data();
    }
    bytes(begin * row, data, count * row);
  }
}

}  // namespace sw
