// Worlds of threads for tests of what runs on a mesh.
#pragma once

#include <functional>
#include <vector>

#include "libswitch/comm/mesh.h"
#include "libswitch/nn/model.h"

namespace sw::testing {

/// Meshes of data and expert axes, on which every bit must be that of one rank, and meshes with a
/// model axis. For models of four experts and two heads.
std::vector<MeshShape> data_meshes();
std::vector<MeshShape> model_meshes();
std::vector<MeshShape> all_meshes();

/// Runs fn as every rank of a mesh, each a thread; rethrows the first exception.
void on_mesh(const MeshShape& shape, const std::function<void(const Mesh&)>& fn);

/// The box of a tensor, dense.
Tensor part_of(const Tensor& whole, const Rectangle& box);

/// Gradients that depend on (step, name, global index) only, in the slots of a model on any mesh.
void write_made_up_gradients(Model& model, int64_t step);

}  // namespace sw::testing
