// Which part of a parameter a rank of a mesh holds: derived from the labels of its dimensions.
#pragma once

#include <string>
#include <vector>

#include "libswitch/comm/mesh.h"
#include "libswitch/tensor/rectangle.h"

namespace sw {

/// The dimensions that lie over axes of the mesh; -1: none. "expert" lies over the expert axis;
/// "vocab", "heads", "heads_kv" and "d_ff" lie over the model axis. What lies over neither is held
/// by every rank.
struct Placement {
  int expert_dimension = -1;
  int model_dimension = -1;
};

/// By the labels of the dimensions.
Placement placement_of(const std::vector<std::string>& axes);

/// The part of a tensor of global shape `shape` that this rank of `mesh` holds. Throws usage,
/// naming `name`, when a dimension does not divide.
Rectangle local_part(const std::string& name, const Shape& shape, const Placement& placement,
                     const Mesh& mesh);

/// Sizes of a rectangle as a shape of `rank` dimensions.
Shape shape_of(const Rectangle& box, int rank);

/// Whether exactly one rank among those that hold the same part writes it to a checkpoint: the
/// first of the replicas (expert parameters) or of the data ranks (all others), and of the model
/// ranks where the model axis does not cut it.
bool writes_part(const Placement& placement, const Mesh& mesh);

}  // namespace sw
