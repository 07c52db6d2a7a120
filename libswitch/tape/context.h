// What an op needs to know about the pass it runs in.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libswitch/base/rng.h"
#include "libswitch/comm/mesh.h"
#include "libswitch/tape/tape.h"
#include "libswitch/tape/var.h"

namespace sw {

class ExpertGradients;  // moe/expert_exchange.h
class Parameter;

/// Hears during a backward pass which gradients have got their last contribution.
class GradientListener {
 public:
  virtual ~GradientListener() = default;
  virtual void complete(std::span<Parameter* const> parameters) = 0;
};

/// What made a step worthless (logits that are not finite). With ranks that wait for each other
/// nobody may leave a pass midway, so it is noted and the pass goes on with harmless values.
struct StepFault {
  std::string text;  // the first one; empty: none
  bool found() const { return !text.empty(); }
};

/// Decisions of a forward pass that a recomputation must repeat and not make again (routing plans:
/// an argmax tie must not flip). Written in order by the first pass, read in the same order by the
/// second.
class ReplayStore {
 public:
  void put(std::shared_ptr<const void> decision) { decisions_.push_back(std::move(decision)); }
  /// The next decision, for the recomputing pass.
  std::shared_ptr<const void> take() { return decisions_.at(next_++); }
  void rewind() { next_ = 0; }

 private:
  std::vector<std::shared_ptr<const void>> decisions_;
  size_t next_ = 0;
};

struct Context {
  Stream stream;
  DType compute = DType::f32;  // dtype of activations and of the weights that enter matrix products
  bool training = false;       // dropout, jitter, training capacity
  Tape* tape = nullptr;        // null: nothing is recorded
  uint64_t seed = 0;           // of the run
  int64_t step = 0;            // of the run: randomness is keyed by it
  int64_t first_row = 0;       // global batch row of this shard's row 0
  const Mesh* mesh = &single_mesh();
  /// Of the step; null: a step has one shard a rank and one micro-batch.
  ExpertGradients* expert_gradients = nullptr;
  GradientListener* listener = nullptr;
  StepFault* fault = nullptr;  // null: a fault is thrown
  ReplayStore* replay = nullptr;
  bool replaying = false;  // the pass repeats decisions of `replay` instead of recording them

  Device device() const { return stream.device; }
  DType master() const { return master_dtype(compute); }

  /// Wraps an op's output; it gets a gradient slot iff something is recorded and an input wants a
  /// gradient.
  Var output(Tensor value, std::initializer_list<const Var*> inputs) const;
  /// Whether an op with this output must record its backward pass.
  bool records(const Var& output) const { return tape != nullptr && output.needs_gradient(); }
  /// Key of a random site: `site` must be unique within the model (layer and place).
  RngKey key(RngPurpose purpose, uint64_t site) const {
    return rng_key(seed, purpose, static_cast<uint64_t>(step), site);
  }
};

}  // namespace sw
