// How ranks are laid out: data x model, with an expert axis inside data (design.md section 3,
// Fedus et al. 2022, section 5).
//
//   rank = (replica · expert + expert_index) · model + model_index,   data = replicas · expert
//
// Data parallelism, model parallelism, expert parallelism and their combinations are values of
// MeshShape. Neighbouring ranks, which share a machine, share a model group first, then an expert
// group.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "libswitch/comm/group.h"

namespace sw {

struct MeshShape {
  int64_t data = 1;    // ranks over which the batch is cut
  int64_t expert = 1;  // of these, ranks over which experts lie; divides data
  int64_t model = 1;   // ranks over which heads, d_ff and vocabulary are cut
  int64_t ranks() const { return data * model; }
  int64_t replicas() const { return data / expert; }
  /// "data=8,expert=4,model=2".
  std::string str() const;
  bool operator==(const MeshShape&) const = default;
};

/// Reads "data=8,expert=4,model=2"; an axis left out is 0: to be chosen. Throws usage.
MeshShape parse_mesh_shape(const std::string& text);
/// Fills in what is 0 for `ranks` ranks and a model of `experts` experts (0: dense): model 1; data
/// whatever ranks are left; expert the largest divisor of data and experts. Throws usage, saying
/// which sizes would do, when the axes do not multiply to `ranks` or expert divides not both data
/// and experts.
MeshShape resolve_mesh_shape(MeshShape wanted, int64_t ranks, int64_t experts);

/// Part `index` of `parts` equal parts of a dimension.
struct MeshPart {
  int64_t index = 0, parts = 1;
  int64_t begin(int64_t size) const { return size / parts * index; }
  int64_t count(int64_t size) const { return size / parts; }
  bool operator==(const MeshPart&) const = default;
};

/// This rank's place and its groups.
class Mesh {
 public:
  /// One rank.
  Mesh();
  /// Called by all ranks of `world`, which must outlive the mesh. Throws usage unless
  /// shape.ranks() is the world's size.
  Mesh(World& world, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  /// Place along each axis.
  MeshPart data_part() const { return {data_index_, shape_.data}; }
  MeshPart expert_part() const { return {data_index_ % shape_.expert, shape_.expert}; }
  MeshPart replica_part() const { return {data_index_ / shape_.expert, shape_.replicas()}; }
  MeshPart model_part() const { return {model_index_, shape_.model}; }

  Group& world() const { return *world_; }
  /// Ranks with this rank's model index: dense gradients are summed over it.
  Group& data() const { return *data_; }
  /// Of these, the ranks that hold the other experts: tokens are exchanged within it.
  Group& expert() const { return *expert_; }
  /// Of the data group, the ranks that hold the same experts: their gradients are summed over it.
  Group& replica() const { return *replica_; }
  /// Ranks that hold the other parts of the same matrices.
  Group& model() const { return *model_; }

 private:
  MeshShape shape_;
  int64_t data_index_ = 0, model_index_ = 0;
  Group* world_ = nullptr;
  Group *data_ = nullptr, *expert_ = nullptr, *replica_ = nullptr, *model_ = nullptr;
  std::vector<std::unique_ptr<Group>> owned_;
};

/// The mesh of one rank.
const Mesh& single_mesh();

}  // namespace sw
