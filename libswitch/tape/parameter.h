// A trainable tensor: name, shape, initialiser, placement, and this rank's part of its master
// weight, working copy and gradient.
#pragma once

#include <string>
#include <vector>

#include "libswitch/tape/placement.h"
#include "libswitch/tape/var.h"

namespace sw {

/// How initial values are drawn. All draws depend on (seed, name, global element index) only.
struct Initializer {
  enum class Kind { constant, normal, truncated_normal, uniform };
  Kind kind = Kind::constant;
  /// constant: the value; normal: standard deviation; truncated_normal: sigma of the normal that is
  /// cut at 2 sigma (its own deviation is 0.8796 sigma); uniform: half-width of the interval around
  /// 0.
  double scale = 0;
};

/// Everything about a parameter that is known without allocating it.
struct ParameterSpec {
  std::string name;  // path in the checkpoint below /model, e.g. "encoder/block_000/attn/q"
  Shape shape;       // global
  std::vector<std::string>
      axes;  // label per dimension: vocab d_model d_kv_heads d_ff expert heads buckets
  Initializer initializer;
  bool master_only = false;  // enters ops in master precision: norms, router, relative bias
  bool expert() const { return !axes.empty() && axes[0] == "expert"; }
  int64_t elements() const { return shape.elements(); }
};

class Parameter {
 public:
  /// Holds this rank's part on `mesh`: all tensors below have its sizes. Throws usage when a
  /// dimension does not divide.
  Parameter(ParameterSpec spec, DType compute, Device device, const Mesh& mesh = single_mesh());

  const ParameterSpec& spec() const { return spec_; }
  const std::string& name() const { return spec_.name; }
  /// Which dimensions lie over which axes of a mesh.
  const Placement& placement() const { return placement_; }
  /// The part of the whole, spec().shape, that this rank holds.
  const Rectangle& rectangle() const { return rectangle_; }
  /// Weight in master precision: what the optimizer updates and the checkpoint holds.
  Tensor& master() { return master_; }
  const Tensor& master() const { return master_; }
  /// Copy in compute precision when that differs from the master, else undefined.
  Tensor& working_copy() { return working_; }
  /// Refreshes the working copy after the master was loaded, initialised or changed in any way but
  /// by the optimizer, which writes both.
  void refresh(const Stream& stream);
  /// Counts calls of refresh: what an optimizer knows of the master holds as long as it stays.
  int64_t refreshes() const { return refreshes_; }
  /// Draws the initial master weight, the same on every mesh, and refreshes.
  void initialize(const Stream& stream, uint64_t seed);

  /// The value that ops use, with the parameter's gradient slot (master precision).
  Var var() const { return Var(working_.defined() ? working_ : master_, slot_); }
  /// Without gradient: evaluation, frozen teacher.
  Var constant() const { return Var(working_.defined() ? working_ : master_); }
  GradientSlot& gradient() { return *slot_; }
  const GradientSlot& gradient() const { return *slot_; }

 private:
  ParameterSpec spec_;
  Placement placement_;
  Rectangle rectangle_;
  Tensor master_, working_;
  GradientSlotPtr slot_;
  int64_t refreshes_ = 0;
};

}  // namespace sw
