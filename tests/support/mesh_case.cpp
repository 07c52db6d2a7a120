#include "tests/support/mesh_case.h"

#include <cstring>

#include "libswitch/base/rng.h"
#include "libswitch/comm/local/threads.h"

namespace sw::testing {

std::vector<MeshShape> data_meshes() { return {{2, 1, 1}, {4, 4, 1}, {4, 2, 1}, {2, 2, 1}}; }

std::vector<MeshShape> model_meshes() { return {{1, 1, 2}, {2, 1, 2}, {4, 2, 2}}; }

std::vector<MeshShape> all_meshes() {
  std::vector<MeshShape> meshes{{1, 1, 1}};
  for (const auto& more : {data_meshes(), model_meshes()}) {
    meshes.insert(meshes.end(), more.begin(), more.end());
  }
  return meshes;
}

void on_mesh(const MeshShape& shape, const std::function<void(const Mesh&)>& fn) {
  run_ranks(shape.ranks(), [&](World& world) {
    const Mesh mesh(world, shape);
    fn(mesh);
  });
}

Tensor part_of(const Tensor& whole, const Rectangle& box) {
  Tensor part = Tensor::empty(shape_of(box, whole.rank()), whole.dtype());
  const auto bytes = static_cast<size_t>(element_bytes(whole.dtype()));
  for (int64_t i = 0; i < part.elements(); ++i) {
    const auto from = static_cast<size_t>(index_in_whole(whole.shape(), box, i));
    std::memcpy(static_cast<char*>(part.raw()) + static_cast<size_t>(i) * bytes,
                static_cast<const char*>(whole.raw()) + from * bytes, bytes);
  }
  return part;
}

void write_made_up_gradients(Model& model, int64_t step) {
  model.clear_gradients();
  for (auto& parameter : model.parameters()) {
    Tensor gradient = parameter->gradient().target().tensor;
    const RngKey key = rng_key(static_cast<uint64_t>(step), RngPurpose::test, parameter->name());
    for (int64_t i = 0; i < gradient.elements(); ++i) {
      const int64_t index = index_in_whole(parameter->spec().shape, parameter->rectangle(), i);
      gradient.data<float>()[i] =
          1e-2f * (random_uniform(key, static_cast<uint64_t>(index)) - 0.5f);
    }
  }
}

}  // namespace sw::testing
