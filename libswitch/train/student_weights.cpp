#include "libswitch/train/student_weights.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/comm/agree.h"

namespace sw {
namespace {

std::vector<int64_t> largest(const std::vector<double>& use, int64_t n) {
  std::vector<int64_t> order(use.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return use[static_cast<size_t>(a)] > use[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(n));
  std::sort(order.begin(), order.end());
  return order;
}

void check_count(const std::string& layer, int64_t n, int64_t experts) {
  SW_CHECK(n <= experts, usage, "--keep-experts: {}, but the teacher's {} has {} experts", n, layer,
           experts);
}

// The layer of a parameter of a sparse feed-forward layer: "encoder/block_001" of
// "encoder/block_001/moe/wi"; empty for any other.
std::string sparse_layer_of(const std::string& name) {
  const size_t at = name.find("/moe/");
  return at == std::string::npos ? "" : name.substr(0, at);
}

// The teacher's tensor of the same meaning: a norm stays when its layer stops being sparse.
std::string source_of(const CheckpointReader& teacher, const std::string& name) {
  if (teacher.contains("/model/" + name)) return "/model/" + name;
  std::string other = name;
  for (const auto& [from, to] : {std::pair("/mlp/norm", "/moe/norm"), {"/moe/norm", "/mlp/norm"}}) {
    if (!name.ends_with(from)) continue;
    other = name.substr(0, name.size() - std::strlen(from)) + to;
  }
  return teacher.contains("/model/" + other) ? "/model/" + other : "";
}

Shape resized(const Shape& shape, int64_t dimension, size_t size) {
  Shape out;
  for (int d = 0; d < shape.rank(); ++d) {
    out.push_back(d == dimension ? static_cast<int64_t>(size) : shape[d]);
  }
  return out;
}

// Rows of `whole`, a tensor of the teacher, along its first dimension.
Tensor rows_of(const CheckpointReader& teacher, const std::string& path,
               const std::vector<int64_t>& rows) {
  const TensorEntry& entry = teacher.entry(path);
  Tensor out = Tensor::empty(resized(entry.shape, 0, rows.size()), entry.dtype);
  const int64_t bytes = out.bytes() / out.size(0);
  auto* to = static_cast<char*>(out.raw());
  for (const int64_t row : rows) {
    teacher.read_rows_into(path, row, row + 1, to, bytes);
    to += bytes;
  }
  return out;
}

// Columns of a matrix, or elements of a vector.
Tensor columns_of(const Tensor& whole, const std::vector<int64_t>& columns) {
  const int64_t width = whole.size(-1), rows = whole.elements() / width;
  Tensor out =
      Tensor::empty(resized(whole.shape(), whole.rank() - 1, columns.size()), whole.dtype());
  const int64_t bytes = element_bytes(whole.dtype());
  const auto* from = static_cast<const char*>(whole.raw());
  auto* to = static_cast<char*>(out.raw());
  for (int64_t r = 0; r < rows; ++r) {
    for (const int64_t c : columns) {
      std::memcpy(to, from + (r * width + c) * bytes, static_cast<size_t>(bytes));
      to += bytes;
    }
  }
  return out;
}

// The box of a whole tensor into a rank's part.
void copy_box(const Tensor& whole, const Rectangle& box, Tensor& part) {
  const Tensor source = whole.dtype() == part.dtype() ? whole : whole.to(part.dtype());
  const int64_t bytes = element_bytes(part.dtype());
  const auto* from = static_cast<const char*>(source.raw());
  auto* to = static_cast<char*>(part.raw());
  if (part.elements() == whole.elements()) {
    std::memcpy(to, from, static_cast<size_t>(part.bytes()));
    return;
  }
  for (int64_t i = 0; i < part.elements(); ++i) {
    std::memcpy(to + i * bytes, from + index_in_whole(whole.shape(), box, i) * bytes,
                static_cast<size_t>(bytes));
  }
}

bool is_router(const ParameterSpec& spec) {
  return spec.name.ends_with("/router") || spec.name.ends_with("/router_bias");
}

// The layer whose experts decide what the parameter takes over; empty: it is no expert's.
std::string layer_of_experts(const ParameterSpec& spec) {
  return spec.expert() || is_router(spec) ? sparse_layer_of(spec.name) : "";
}

// The whole of what the student's parameter takes over; undefined: nothing.
Tensor inherited(const CheckpointReader& teacher, const ParameterSpec& spec,
                 const KeptExperts& kept) {
  const std::string path = source_of(teacher, spec.name);
  if (path.empty()) return {};
  const std::string layer = layer_of_experts(spec);
  if (layer.empty()) return teacher.read(path);
  const auto found = kept.find(layer);
  if (found == kept.end()) return {};
  return is_router(spec) ? columns_of(teacher.read(path), found->second)
                         : rows_of(teacher, path, found->second);
}

void check_shape(const ParameterSpec& spec, const Shape& inherited,
                 const CheckpointReader& teacher) {
  SW_CHECK(inherited == spec.shape, usage,
           "--init teacher: {} is {} in the student and {} in {}; give the student the teacher's "
           "sizes, or --init fresh",
           spec.name, spec.shape.str(), inherited.str(), teacher.path().string());
}

}  // namespace

KeptExperts most_used_experts(const std::vector<RouterStatistics>& layers, int64_t n) {
  KeptExperts kept;
  for (const RouterStatistics& layer : layers) {
    check_count(layer.name, n, layer.experts);
    kept[layer.name] = largest(std::vector<double>(layer.chosen.begin(), layer.chosen.end()), n);
  }
  return kept;
}

KeptExperts most_used_experts(const CheckpointReader& reader, int64_t n) {
  constexpr size_t kRows = 100;
  const RouterTelemetry router = reader.read_telemetry().router;
  const size_t rows = router.step.size(), layers = router.layer_name.size();
  SW_CHECK(rows > 0 && layers > 0, usage,
           "{}: holds no router telemetry to tell its most used experts by; give --expert-usage "
           "data",
           reader.path().string());
  KeptExperts kept;
  const auto experts = static_cast<size_t>(router.experts);
  for (size_t l = 0; l < layers; ++l) {
    check_count(router.layer_name[l], n, router.experts);
    std::vector<double> use(experts);
    for (size_t t = rows - std::min(rows, kRows); t < rows; ++t) {
      for (size_t e = 0; e < experts; ++e) {
        use[e] += static_cast<double>(router.tokens[(t * layers + l) * experts + e]);
      }
    }
    kept[router.layer_name[l]] = largest(use, n);
  }
  return kept;
}

void check_inheritable(const ModelConfig& student, const CheckpointReader& teacher, int64_t keep) {
  for (const ParameterSpec& spec : parameter_specs(student)) {
    const std::string path = source_of(teacher, spec.name);
    const bool of_experts = !layer_of_experts(spec).empty();
    if (path.empty() || (of_experts && keep == 0)) continue;
    Shape shape = teacher.entry(path).shape;
    if (of_experts) {
      shape = resized(shape, is_router(spec) ? shape.rank() - 1 : 0, static_cast<size_t>(keep));
    }
    check_shape(spec, shape, teacher);
  }
}

CopiedWeights initialize_from_teacher(Model& student, const CheckpointReader& teacher,
                                      const KeptExperts& kept, uint64_t seed) {
  student.initialize(seed);
  CopiedWeights copied;
  agree_on(student.mesh().world(), [&] {
    for (auto& parameter : student.parameters()) {
      const ParameterSpec& spec = parameter->spec();
      const Tensor whole = inherited(teacher, spec, kept);
      if (!whole.defined()) {
        ++copied.fresh;
        continue;
      }
      check_shape(spec, whole.shape(), teacher);
      copy_box(whole, parameter->rectangle(), parameter->master());
      parameter->refresh(Stream{parameter->master().device()});
      ++copied.tensors;
    }
  });
  return copied;
}

}  // namespace sw
