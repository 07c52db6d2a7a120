#include "libswitch/train/gradient_reduction.h"

#include "libswitch/base/error.h"
#include "libswitch/base/profile.h"
#include "libswitch/kernels/elementwise.h"

namespace sw {
namespace {

// Large enough that a message's latency does not count, small enough to start early.
constexpr int64_t kBucketBytes = int64_t{8} << 20;

}  // namespace

// An undefined tensor stands for a shard that contributed nothing.
void GradientReduction::Add::operator()(Tensor& left, const Tensor& right) const {
  if (!right.defined()) return;
  if (!left.defined()) {
    left = right;
  } else {
    kernels::scale(Stream{left.device()}, left, right, 1.0, Accum::add);
  }
}

GradientReduction::GradientReduction(Model& model, int64_t shards)
    : model_(model), shards_(shards), complete_(model.parameters().size(), false) {
  SW_CHECK(shards >= 1, internal, "gradient reduction: {} shards, expected at least 1", shards);
  const size_t count = model.parameters().size();
  for (size_t i = 0; i < count; ++i) index_[model.parameters()[i].get()] = i;
  if (shards > 1) trees_.assign(count, SumTree<Tensor, Add>(Add{}));
  dense_.group = &model.mesh().data();
  expert_.group = &model.mesh().replica();
}

GradientReduction::~GradientReduction() = default;

namespace {

// The slot's gradient with the right to change it.
Tensor take(GradientSlot& slot) {
  Tensor gradient = slot.take_unshared();
  if (!gradient.defined() && slot.is_set()) {
    gradient = slot.gradient().clone();
    slot.clear();
  }
  return gradient;
}

}  // namespace

void GradientReduction::push() {
  const ProfileRegion region("gradient tree");
  for (size_t i = 0; i < trees_.size(); ++i) {
    trees_[i].push(take(model_.parameters()[i]->gradient()));
  }
}

void GradientReduction::sum_shards(Parameter& parameter) {
  if (shards_ == 1) return;  // the slot holds the sum already
  const ProfileRegion region("gradient tree");
  SumTree<Tensor, Add>& tree = trees_[index_.at(&parameter)];
  GradientSlot& slot = parameter.gradient();
  tree.push(take(slot));
  Tensor sum = tree.finish();
  slot.clear();
  if (!sum.defined()) return;
  const Stream stream{sum.device()};
  slot.adopt(stream, std::move(sum));
}

void GradientReduction::complete(std::span<Parameter* const> parameters) {
  if (!last_) return;
  for (Parameter* parameter : parameters) {
    const size_t i = index_.at(parameter);
    if (complete_[i]) continue;
    complete_[i] = true;
    sum_shards(*parameter);
    Bucket& bucket = parameter->placement().expert_dimension >= 0 ? expert_ : dense_;
    // Whether anything contributed depends on the model alone, so all ranks agree on it.
    if (bucket.group->size() == 1 || !parameter->gradient().is_set()) continue;
    bucket.gradients.push_back(parameter->gradient().target().tensor);
    bucket.bytes += bucket.gradients.back().bytes();
    if (bucket.bytes >= kBucketBytes) start(bucket);
  }
  for (const auto& pending : pending_) pending->advance();
}

void GradientReduction::start(Bucket& bucket) {
  if (bucket.gradients.empty()) return;
  pending_.push_back(bucket.group->start_all_reduce(std::move(bucket.gradients)));
  bucket.gradients.clear();
  bucket.bytes = 0;
}

void GradientReduction::finish() {
  last_ = true;
  std::vector<Parameter*> all;
  for (auto& parameter : model_.parameters()) all.push_back(parameter.get());
  complete(all);
  start(dense_);
  start(expert_);
  const ProfileRegion region("gradient reduction");
  for (const auto& pending : pending_) pending->finish();
  pending_.clear();
}

}  // namespace sw
