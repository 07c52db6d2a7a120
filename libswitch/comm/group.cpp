#include "libswitch/comm/group.h"

#include "libswitch/base/error.h"

namespace sw {

Group::Group(std::string name, std::vector<int64_t> world_ranks, int64_t rank)
    : name_(std::move(name)),
      world_ranks_(std::move(world_ranks)),
      rank_(rank),
      size_(static_cast<int64_t>(world_ranks_.size())) {
  SW_CHECK(size_ >= 1 && rank >= 0 && rank < size_, internal, "group {}: rank {} of {}", name_,
           rank, size_);
}

void Group::all_reduce(Tensor& x, ReduceOp op) { start_all_reduce({x}, op)->finish(); }

}  // namespace sw
