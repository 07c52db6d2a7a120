#include "libswitch/tape/placement.h"

#include "libswitch/base/error.h"

namespace sw {

Placement placement_of(const std::vector<std::string>& axes) {
  Placement placement;
  for (size_t d = 0; d < axes.size(); ++d) {
    const std::string& axis = axes[d];
    if (axis == "expert") placement.expert_dimension = static_cast<int>(d);
    if (axis == "vocab" || axis == "heads" || axis == "heads_kv" || axis == "d_ff") {
      placement.model_dimension = static_cast<int>(d);
    }
  }
  return placement;
}

Rectangle local_part(const std::string& name, const Shape& shape, const Placement& placement,
                     const Mesh& mesh) {
  Rectangle box = whole_of(shape);
  const auto cut = [&](int dimension, MeshPart part, const char* axis) {
    if (dimension < 0 || part.parts == 1) return;
    const int64_t size = shape[dimension];
    SW_CHECK(size % part.parts == 0, usage,
             "mesh {}: dimension {} of '{}' is {}, which {}={} does not divide", mesh.shape().str(),
             dimension, name, size, axis, part.parts);
    box.start[static_cast<size_t>(dimension)] = part.begin(size);
    box.count[static_cast<size_t>(dimension)] = part.count(size);
  };
  cut(placement.expert_dimension, mesh.expert_part(), "expert");
  cut(placement.model_dimension, mesh.model_part(), "model");
  return box;
}

Shape shape_of(const Rectangle& box, int rank) {
  Shape shape;
  for (int d = 0; d < rank; ++d) shape.push_back(box.count[static_cast<size_t>(d)]);
  return shape;
}

bool writes_part(const Placement& placement, const Mesh& mesh) {
  const bool first_of_data = placement.expert_dimension >= 0 ? mesh.replica_part().index == 0
                                                             : mesh.data_part().index == 0;
  return first_of_data && (placement.model_dimension >= 0 || mesh.model_part().index == 0);
}

}  // namespace sw
